"use strict";
/* Puts a JSON editor over each textarea of the schedule form. The textarea is what is submitted, exactly as typed: text
   that is no JSON reaches the server, which says what is wrong with it. */
document.addEventListener("DOMContentLoaded", () => {
    /* Whether JavaScript writes these numbers as they stand; 12345678901234567890 and 1.0 become others. */
    const exact = (text) => {
        const numbers = text.replace(/"(?:[^"\\]|\\.)*"/g, "").match(/-?\d[\d.eE+-]*/g) || [];
        return numbers.every((number) => String(Number(number)) === number);
    };
    const isJSON = (text) => {
        try {
            JSON.parse(text);
            return true;
        } catch {
            return false;
        }
    };

    for (const place of document.querySelectorAll(".carrot-json")) {
        const textarea = place.querySelector("textarea");
        if (typeof JSONEditor === "undefined") {
            continue; /* the plain textarea does */
        }
        const options = JSON.parse(place.dataset.options);
        if (!isJSON(textarea.value) || /^\s*(\[\s*\]|\{\s*\})\s*$/.test(textarea.value)) {
            options.mode = "text"; /* an empty tree has nothing to type into */
        } else if (!exact(textarea.value)) {
            options.mode = "text";
            options.modes = ["text"];
        }
        const container = document.createElement("div");
        container.className = "carrot-json-editor";
        const label = document.querySelector(`label[for="${textarea.id}"]`);
        container.setAttribute("role", "group");
        container.setAttribute("aria-label", label ? label.textContent.replace(/:\s*$/, "") : textarea.name);
        const message = document.createElement("p");
        message.className = "carrot-json-message";
        message.setAttribute("role", "alert");
        message.hidden = true;
        place.append(container, message);

        options.onChangeText = (text) => {
            textarea.value = text;
            message.hidden = true;
        };
        options.onError = () => {
            message.textContent = place.dataset.broken;
            message.hidden = false;
        };
        options.onModeChange = () => {
            message.hidden = true;
        };
        const editor = new JSONEditor(container, options);
        if (options.mode === "text") {
            editor.setText(textarea.value);
        } else {
            editor.set(JSON.parse(textarea.value));
            editor.expandAll();
        }
        textarea.hidden = true;
        if (label) {
            label.addEventListener("click", () => editor.focus());
        }
    }
});
