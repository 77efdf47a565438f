"use strict";
/* Shows below a task chooser what the chosen function takes, and the first line of its docstring. */
document.addEventListener("DOMContentLoaded", () => {
    for (const chooser of document.querySelectorAll(".carrot-chooser")) {
        const select = chooser.querySelector("select");
        const chosen = chooser.querySelector(".carrot-chosen");
        const show = () => {
            const option = select.selectedOptions[0];
            const call = option ? option.dataset.call : "";
            chosen.hidden = !call;
            chosen.querySelector("code").textContent = call || "";
            chosen.querySelector("span").textContent = call ? option.dataset.summary : "";
        };
        select.addEventListener("change", show);
        show();
    }
});
