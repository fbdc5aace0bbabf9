"use strict";
// Who is here, and who writes something.
const FACES = 5;  // that are shown beside the number
const TELL_AGAIN = 2, FORGET = 4;  // seconds: while one writes, and after one has said so for the last time
const me = document.body.dataset.me;
const writing = new Map();  // by person: the name, and the timer that forgets it
let present = new Map();  // by member: who it is. Each tab of a guest is a member.
let told = 0;  // when the others were told last that you write

on.here = ({ here }) => {
  present = new Map();
  on.came({ came: here, went: [] });
};

on.came = ({ came, went }) => {
  for (const { id, info } of came) present.set(id, info);
  for (const id of went) present.delete(id);
  const people = [...new Map([...present.values()].map(person => [person.id, person])).values()];
  people.sort((one, other) => (other.id === me) - (one.id === me) || one.name.localeCompare(other.name));
  showPeople(people.length, people);
};

on.count = ({ count }) => showPeople(count, []);  // too many for names

function showPeople(count, people) {
  $("count").textContent = count.toLocaleString();
  $("here").hidden = false;
  $("faces").replaceChildren(...people.slice(0, FACES).map(person => portray($("face"), person)));
  $("names").replaceChildren(...people.map(person => portray($("person"), person)));
  $("many").hidden = people.length > 0;
}

function portray(template, { id, name, guest }) {  // an item, and who it is about
  const copy = template.content.cloneNode(true), item = copy.firstElementChild;
  copy.querySelector(".avatar").textContent = [...name][0];  // never innerHTML: it is their text
  item.querySelector(".name")?.append(name);
  item.classList.toggle("guest", Boolean(guest));
  item.classList.toggle("mine", id === me);
  const sum = [...id].reduce((sum, char) => (31 * sum + char.codePointAt(0)) % 360, 0);
  item.style.setProperty("--hue", 137 * sum % 360);  // degrees: user-1 and user-2 look different
  return item;
}

on.typing = ({ from }) => {
  if (from.id === me) return;  // in another tab
  clearTimeout(writing.get(from.id)?.timer);
  writing.set(from.id, { name: from.name, timer: setTimeout(stopWriting, 1000 * FORGET, from.id) });
  showWriting();
};

function stopWriting(id) {
  clearTimeout(writing.get(id)?.timer);
  if (writing.delete(id)) showWriting();
}

function showWriting() {
  const names = [...writing.values()].map(({ name }) => name);
  const who = names.length > 2 ? "Several people are" : names.join(" and ") + (names.length > 1 ? " are" : " is");
  $("typing").textContent = names.length ? `${who} typing…` : "";
}

$("text").oninput = () => {
  if ($("send").disabled || !$("text").value.trim() || Date.now() - told < 1000 * TELL_AGAIN) return;
  told = Date.now();
  tell({ typing: true });
};
