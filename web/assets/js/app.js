// Everything the pages need beyond HTML. They work without it; it makes them live.
import "htmx.org";
import "htmx-ext-sse";
import "idiomorph/htmx";
import "./copy.js";
import "./keyboard.js";
import "./launch.js";
import "./live.js";
import "./logs.js";
import "./playground.js";
import "./rows.js";
import "./snippets.js";
import "./theme.js";
import "./times.js";
