"use strict";
// The connection of the page, under its own address. It comes back by itself, and says how it is.
const FIRST_DELAY = 0.5, LONGEST_DELAY = 30;  // seconds
const FINAL = [1000, 1008, 1009, 4400, 4403, 4404];  // close codes after which another attempt would end the same way
const $ = id => document.getElementById(id);
const on = { ready, notice };  // what is done with a message, by its type; of another type: nothing
let ws, timer, delay = FIRST_DELAY;

function connect() {
  clearTimeout(timer);
  timer = null;
  show("connecting", "Connecting");
  ws = new WebSocket(location.href.replace("http", "ws").replace(/#.*/, ""));
  ws.onmessage = event => { const message = JSON.parse(event.data); on[message.type]?.(message); };
  ws.onclose = event => {
    if (event.code === 4401) return location.reload();  // the server has forgotten the name, and asks for it
    if (FINAL.includes(event.code)) return show("closed", `Closed (${event.code})`);
    timer = setTimeout(connect, 1000 * delay * (0.5 + Math.random()));  // not all pages at once, after a restart
    delay = Math.min(2 * delay, LONGEST_DELAY);
    show("waiting", "Offline, trying again");
  };
}

function ready() {  // only now everything works: an open connection may still be refused by the groups
  delay = FIRST_DELAY;
  show("open", "Connected");
}

function show(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
  if ($("send")) $("send").disabled = state !== "open";
}

function notice({ text }) {
  const item = $("notice").content.cloneNode(true).firstElementChild;
  item.querySelector("span").textContent = text;
  item.querySelector("button").onclick = () => item.remove();
  $("notices").append(item);
}

addEventListener("online", () => timer && connect());
document.addEventListener("visibilitychange", () => timer && !document.hidden && connect());
connect();
