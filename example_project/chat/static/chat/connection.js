"use strict";
// The connection of the page, under its own address. It comes back by itself, and says where it was, and how it is.
const FIRST_DELAY = 0.5, LONGEST_DELAY = 30;  // seconds
const FINAL = [1000, 1008, 1009, 4400, 4403, 4404];  // close codes after which another attempt would end the same way
const OF_GROUPS = ["joined", "gap", "here", "came", "count"];  // what a group itself says has one of these keys
const $ = id => document.getElementById(id);
const on = { ready, notice };  // what is done with a message, by its type or key; with another one: nothing
const positions = new Map();  // by group: behind the last message of it that has come
let ws, timer, delay = FIRST_DELAY;

function connect() {
  clearTimeout(timer);
  timer = null;
  show("connecting", "Connecting");
  const url = new URL(location.href.replace("http", "ws").replace(/#.*/, ""));
  for (const [group, position] of positions) url.searchParams.append("since", `${position}:${group}`);
  ws = new WebSocket(url);
  ws.onmessage = event => receive(JSON.parse(event.data));
  ws.onclose = event => {
    if (event.code === 4401) return location.reload();  // the server has forgotten the name, and asks for it
    if (FINAL.includes(event.code)) return show("closed", `Closed (${event.code})`);
    timer = setTimeout(connect, 1000 * delay * (0.5 + Math.random()));  // not all pages at once, after a restart
    delay = Math.min(2 * delay, LONGEST_DELAY);
    show("waiting", "Offline, trying again");
  };
}

function receive(message) {  // of a group, perhaps: its name, the position behind this, and what was sent to it
  const { g: group, p: position, d: data } = message, said = data ? JSON.parse(data) : message;
  on[OF_GROUPS.find(key => key in message) ?? said.type]?.(said, position);
  if (position) positions.set(group, position);
}

function tell(message) { ws.send(JSON.stringify(message)); }

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

// A page that one leaves may be kept, with its connection, for the way back: then it would be here still.
addEventListener("pagehide", () => { ws.onclose = null; ws.close(); });
addEventListener("pageshow", event => event.persisted && connect());
addEventListener("online", () => timer && connect());
document.addEventListener("visibilitychange", () => timer && !document.hidden && connect());
addEventListener("DOMContentLoaded", connect);  // when the other scripts have said what they do
