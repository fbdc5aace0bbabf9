"use strict";
// What is said in the room, and what you say.
const sent = new Map();  // what has not come back yet, and the timer that tells you so
let following = true, last = {};  // whether the end is in sight; the latest message

on.message = message => {
  const item = $("message").content.cloneNode(true).firstElementChild, { from, text, at } = message;
  const part = (name, text) => { item.querySelector(name).textContent = text; };  // never innerHTML: it is their text
  part(".avatar", [...from.name][0]);
  part(".name", from.name);
  part(".text", text);
  part("time", new Date(1000 * at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  if (item.classList.toggle("mine", from.id === document.body.dataset.me)) settle(text);
  item.classList.toggle("guest", Boolean(from.guest));
  item.classList.toggle("more", last.from?.id === from.id && at - last.at < 120);  // seconds: no name again
  item.style.setProperty("--hue", [...from.id].reduce((sum, char) => (31 * sum + char.codePointAt(0)) % 360, 0));
  $("messages").append(item);
  if ($("messages").children.length > 500) $("messages").firstElementChild.remove();
  last = message;
  if (following) toEnd(); else $("newer").hidden = false;
};

on.failed = ({ text }) => {  // the server says so, or nothing comes back of it
  settle(text);
  $("text").value ||= text;
  notice({ text: `This may not have arrived: “${text}”` });
};

function settle(text) {
  clearTimeout(sent.get(text));
  sent.delete(text);
}

function toEnd() { $("log").scrollTop = $("log").scrollHeight; }

$("newer").onclick = toEnd;
$("log").onscroll = () => {
  following = $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 40;  // pixels
  if (following) $("newer").hidden = true;
};
new ResizeObserver(() => following && toEnd()).observe($("log"));  // a phone's keyboard comes up

$("composer").onsubmit = event => {
  event.preventDefault();
  const text = $("text").value.trim();
  if ($("send").disabled || !text) return;
  ws.send(text);
  settle(text);
  sent.set(text, setTimeout(on.failed, 5000, { text }));
  $("text").value = "";
  toEnd();
};
$("text").onkeydown = event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;  // Shift: a new line
  event.preventDefault();
  $("composer").requestSubmit();
};
