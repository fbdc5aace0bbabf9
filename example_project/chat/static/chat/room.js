"use strict";
// What is said in the room, what was said before, and what you say.
const UNSURE = 5;  // seconds after which you are told that something has not come back
const MOST = 500;  // messages that are shown
const shown = new Set();  // the positions of those
const unsent = new Map();  // by id: what you have said, and has not come back
let following = true;  // whether the end is in sight
let isComplete = false, isAsking = false;  // whether what was said before is shown; whether more of it was asked for
let hasEarlier = false;  // whether there is more

on.joined = ({ joined }) => {  // true: the page has missed nothing, or gets it now. Without a position it is null.
  isAsking = false;
  if (!joined) beginAnew(joined === false);
  else if (!isComplete) askEarlier();
};

on.gap = () => beginAnew(true);

function beginAnew(isMissing) {
  $("messages").replaceChildren();
  if (isMissing) $("messages").append(copy("missing"));
  shown.clear();
  isComplete = isAsking = hasEarlier = false;
  following = true;
  showEdge();
  askEarlier();
}

// What is said now, and what was said before: each message once, whichever way it comes

on.message = (message, position) => {
  stopWriting(message.from.id);
  if (shown.has(position)) return;
  $("messages").append(made(message, position));
  joinTo($("messages").lastElementChild);
  if (following && shown.size > MOST) forgetFirst();
  showEdge();
  if (following) toEnd(); else $("newer").hidden = false;
};

on.earlier = ({ messages, more }) => {
  isComplete = true;
  isAsking = false;
  const kept = messages.map(text => JSON.parse(text)), overlap = kept.findIndex(({ p }) => shown.has(p));
  const earlier = overlap < 0 ? kept : kept.slice(0, overlap);
  const toBottom = $("log").scrollHeight - $("log").scrollTop;
  $("log").ariaBusy = "true";  // what was said before is not read out
  $("messages").prepend(...earlier.map(({ p, d }) => made(JSON.parse(d), p)));
  for (const item of [...$("messages").children].slice(0, earlier.length + 1)) joinTo(item);
  hasEarlier = more;
  showEdge();
  if (following) toEnd(); else $("log").scrollTop = $("log").scrollHeight - toBottom;
  $("log").ariaBusy = "false";
};

function askEarlier() {
  isAsking = true;
  tell({ before: [...$("messages").children].find(item => item.position)?.position ?? null });
}

function copy(template) { return $(template).content.cloneNode(true).firstElementChild; }

function made(message, position) {
  const item = portray($("message"), message.from), at = new Date(1000 * message.at);
  const day = at.toDateString() === new Date().toDateString() ? undefined : "short";  // not today's
  item.querySelector(".text").textContent = message.text;
  item.querySelector("time").dateTime = at.toISOString();
  item.querySelector("time").textContent = at.toLocaleString([], { weekday: day, hour: "2-digit", minute: "2-digit" });
  Object.assign(item, { message, position });
  shown.add(position);
  if (message.from.id === me) settle(message.id);
  return item;
}

function joinTo(item) {  // the one above, of the same person within two minutes: no name again
  const { message } = item, above = item.previousElementSibling?.message;
  item.classList.toggle("more", Boolean(above) && above.from.id === message?.from.id && message.at - above.at < 120);
}

function forgetFirst() {
  shown.delete($("messages").firstElementChild.position);
  $("messages").firstElementChild.remove();
  hasEarlier = true;
}

function showEdge() {  // where the messages begin
  $("earlier").hidden = !hasEarlier;
  $("beginning").hidden = hasEarlier || !isComplete || !shown.size;
  $("nothing").hidden = !isComplete || shown.size > 0;
}

// What you say. It waits at the end until it comes back as a message of the room; nothing is sent again by itself.

function say(text) {
  const id = [...crypto.getRandomValues(new Uint32Array(4))].map(number => number.toString(36)).join("");
  const item = copy("unsent");
  item.querySelector(".text").textContent = text;
  item.querySelector(".again").onclick = () => $("send").disabled || send(id);
  item.querySelector(".drop").onclick = () => settle(id);
  unsent.set(id, { text, item });
  $("unsent-messages").append(item);
  send(id);
  toEnd();
}

function send(id) {
  const said = unsent.get(id);
  said.item.classList.remove("failed");
  clearTimeout(said.timer);
  said.timer = setTimeout(on.failed, 1000 * UNSURE, { id });
  tell({ say: said.text, id });  // the same id: if it has arrived, for five minutes it does not come twice
}

on.failed = ({ id }) => {  // the server says so, or nothing has come back
  unsent.get(id)?.item.classList.add("failed");
  if (following) toEnd();
};

function settle(id) {
  clearTimeout(unsent.get(id)?.timer);
  unsent.get(id)?.item.remove();
  unsent.delete(id);
}

$("composer").onsubmit = event => {
  event.preventDefault();
  const text = $("text").value.trim();
  if ($("send").disabled || !text) return;
  say(text);
  $("text").value = "";
  told = 0;
};
$("text").onkeydown = event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;  // Shift: a new line
  event.preventDefault();
  $("composer").requestSubmit();
};

// What is in sight

function toEnd() { $("log").scrollTop = $("log").scrollHeight; }

$("newer").onclick = toEnd;
$("earlier").onclick = () => isAsking || $("send").disabled || askEarlier();
$("log").onscroll = () => {
  following = $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 40;  // pixels
  if (following) $("newer").hidden = true;
  if ($("log").scrollTop < 200 && hasEarlier && !following) $("earlier").onclick();
};
new ResizeObserver(() => following && toEnd()).observe($("log"));  // a phone's keyboard comes up
