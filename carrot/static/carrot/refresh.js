"use strict";
/* Keeps a list up to date: asks for the page again every ten seconds, unless somebody is at work on it.

   The page is loaded as a whole, since the admin's own script for ticking rows knows only those it found at the start.
   It never goes while the tab is hidden, a row is ticked, text is selected, or a field has the focus; the place on the
   page stays. The switch is remembered by the browser. */
document.addEventListener("DOMContentLoaded", () => {
    const holder = document.querySelector(".carrot-refresh");
    if (!holder) {
        return;
    }
    const SECONDS = 10;
    const SWITCH = "carrot.refresh";
    const PLACE = "carrot.refresh.place";
    const toggle = holder.querySelector("input");
    toggle.checked = localStorage.getItem(SWITCH) !== "off";
    toggle.addEventListener("change", () => localStorage.setItem(SWITCH, toggle.checked ? "on" : "off"));
    holder.hidden = false;

    const place = JSON.parse(sessionStorage.getItem(PLACE) || "null");
    sessionStorage.removeItem(PLACE);
    if (place && place.page === location.href) {
        window.scrollTo(0, place.top);
    }

    const atWork = () =>
        document.hidden ||
        document.querySelector("tr.selected, input.action-select:checked, #action-toggle:checked") ||
        String(window.getSelection()) ||
        (document.activeElement.matches("input, select, textarea") && document.activeElement !== toggle);

    let waited = 0;
    window.setInterval(() => {
        waited += 1;
        if (waited < SECONDS || !toggle.checked || atWork()) {
            return;
        }
        waited = 0;
        // Asked for first: a page that does not come, or a login that is over, leaves what is there.
        fetch(location.href, { method: "HEAD", credentials: "same-origin", redirect: "manual" })
            .then((answer) => {
                if (answer.ok && toggle.checked && !atWork()) {
                    sessionStorage.setItem(PLACE, JSON.stringify({ page: location.href, top: window.scrollY }));
                    location.reload();
                }
            })
            .catch(() => {});
    }, 1000);
});
