// Loaded before Azurite: what it saves every five seconds it saves four times a second, so that tests need not wait for it.
"use strict";
const start = global.setInterval;
global.setInterval = (what, after, ...rest) => start(what, after === 5000 ? 250 : after, ...rest);
