// The members of the service: which of them serve, lag, restore, wait for a model or are away.

import { byId, make } from "/static/common.js";
import { formatRate } from "/static/strip.js";

const SHOWN = 12; // those in trouble first, as the server gives them

export function showMembers(members) {
  const list = byId("member-list");
  const shown = members.slice(0, SHOWN);
  byId("members-name").textContent = members.length === 1 ? "This member" : membersInWords(members);
  list.replaceChildren(...shown.map((member) => {
    const item = document.createElement("li");
    const state = stateOf(member);
    item.dataset.state = state.kind;
    make(item, "b").textContent = item.title = member.name;
    make(item, "span", "state").textContent = state.words;
    for (const [text, bad] of member.away === null ? factsOf(member) : []) make(item, "span", bad ? "bad" : "").textContent = text;
    return item;
  }));
  byId("members-more").textContent = members.length > shown.length ? `and ${members.length - shown.length} more that serve` : "";
}

function membersInWords(members) {
  const count = (kind) => members.filter((member) => stateOf(member).kind === kind).length;
  const parts = [["away", "away"], ["waiting", "not ready"]].map(([kind, words]) => [count(kind), words]).filter(([n]) => n > 0);
  return [`${members.length} members`, ...parts.map(([n, words]) => `${n} ${words}`)].join(", ");
}

function stateOf({ away, away_s: seconds, conditions, restoring }) {
  if (away !== null) return { kind: "away", words: `away for ${shortly(seconds)}: ${away}` };
  if (!conditions.live) return { kind: "waiting", words: "its loop stands still" };
  if (!conditions.started) return { kind: "waiting", words: "starts" };
  if (!conditions.assigned) return { kind: "waiting", words: "waits for partitions" };
  if (!conditions.restored) return { kind: "waiting", words: `restores ${counted(restoring ?? 0, "partition")}` };
  return { kind: "ready", words: "serves" };
}

/** What to know of a member that answers, and whether it is trouble. */
function factsOf(member) {
  const facts = [
    [`${formatRate(member.events_per_second)} events/s`, false],
    [counted(member.streams ?? 0, "stream"), false],
  ];
  if (member.lag !== null) facts.push([`lag ${member.lag.toLocaleString("en-US")}`, false]);
  if (member.dead_letters) facts.push([counted(member.dead_letters, "dead letter"), true]);
  if (member.swap_pending_s) facts.push([`model swap for ${shortly(member.swap_pending_s)}`, false]);
  if (member.refused_models) facts.push(["refuses the promoted model", true]);
  if (member.registry_errors) facts.push([counted(member.registry_errors, "registry error"), false]);
  facts.push([member.model, false]);
  return facts;
}

function counted(number, word) {
  return `${number.toLocaleString("en-US")} ${word}${number === 1 ? "" : "s"}`;
}

function shortly(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5_400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`;
}
