"use strict";
// Sensitivity and specificity stand in the page; all else follows from them and a share.
const part = document.getElementById("elsewhere");
const numbers = JSON.parse(document.getElementById("elsewhere-numbers").textContent);
const input = (name) => document.getElementById(`elsewhere-${name}`);
const ANGLES = Array.from({length: 65}, (_, k) => k / 64 * Math.PI / 2);
const odds = numbers.act_from / (1 - numbers.act_from);
const precision = (s, p, m) => m * s / (m * s + (1 - m) * (1 - p));
const negative = (s, p, m) => (1 - m) * p / ((1 - m) * p + m * (1 - s));
const benefit = (s, p, m) => m * s - (1 - m) * (1 - p) * odds;

// Least and greatest value on the quarters of an ellipse: intervals.of_two_shares.
function bounded(metric, calls, m) {
  const [s, sLow, sHigh, p, pLow, pHigh] = calls;
  if (calls.includes(null)) return [metric(s, p, m), NaN, NaN];
  const along = (toS, toP) => ANGLES
    .map((a) => metric(s + (toS - s) * Math.cos(a), p + (toP - p) * Math.sin(a), m))
    .filter((value) => !Number.isNaN(value));
  return [metric(s, p, m), Math.min(...along(sLow, pLow)), Math.max(...along(sHigh, pHigh))];
}

// As Python rounds: where the number is a tie, to the even digit.
function fixed(value, digits) {
  const away = value.toFixed(digits);
  const tie = Math.abs(value * 2 ** (digits + 1)) % 2 === 1 && /[13579]$/.test(away);
  const shown = tie ? (value * (1 - 1e-9)).toFixed(digits) : away;
  return Number(shown) ? shown.replace("-", "\u2212") : (0).toFixed(digits);
}

function nearest(threshold) {
  const away = numbers.thresholds.map((each) => Math.abs(each - threshold));
  return away.indexOf(Math.min(...away));
}

const percent = (share) => `${Number((100 * share).toPrecision(3))} %`;
const whole = (count) => Math.round(count).toLocaleString("en");

function show(name, [value, low, high], digits, none) {
  const known = Number.isFinite(value);
  const row = part.querySelector(`[data-of=${name}]`);
  row.children[1].textContent = known ? fixed(value, digits) : none;
  const end = (bound) => bound === Infinity ? "no limit" : fixed(bound, digits);
  const shown = low === null || Number.isNaN(low) ? "no interval" : `${end(low)} to ${end(high)}`;
  row.children[2].textContent = known ? shown : "";
}

function draw() {
  const network = numbers.networks[input("network").value];
  const locked = network.locked[input("rule").value];
  if (locked) input("threshold").value = nearest(locked.threshold);
  const at = input("threshold").value;
  const threshold = locked ? locked.threshold : numbers.thresholds[at];
  const calls = locked ? locked.calls : network.calls[at];
  const m = Number(input("share").value) / 100;
  const [s, p] = [calls[0], calls[3]];
  const right = bounded(precision, calls, m);
  const alarms = [right[0], right[2], right[1]].map((value) => 1 / value - 1);
  const from = locked ? `${numbers.rules[input("rule").value]} (${percent(threshold)})`
    : `a probability of ${percent(threshold)}`;
  const here = network.fitted_share;
  const moved = threshold / (1 - threshold) * m / (1 - m) * (1 - here) / here;
  input("threshold-shown").textContent = percent(threshold);
  input("share-shown").textContent = percent(m);
  input("threshold").setAttribute("aria-valuetext", percent(threshold));
  input("share").setAttribute("aria-valuetext", percent(m));
  const sick = Math.round(1000 * m);
  const [found, wrong] = [Math.round(sick * s), Math.round((1000 - sick) * (1 - p))];
  input("said").textContent = `Of 1,000 images there, ${sick} are malignant: ${whole(found)} of `
    + `them are found and ${whole(sick - found)} missed. ${whole(wrong)} of the `
    + `${1000 - sick} benign ones are called malignant.`;
  input("caption").textContent = `${network.title}, malignant from ${from} on, where `
    + `${percent(m)} of the images are malignant. By image, ${network.judged}.`;
  input("corrected").textContent = `The probability is that of a place like this run's, where `
    + `${percent(here)} are malignant. Corrected for the share there, an image at `
    + `the threshold has a probability of ${percent(moved / (1 + moved))}.` + (locked && locked.note
    ? ` Of this threshold: ${locked.note}.` : "");
  show("recall", calls.slice(0, 3), 3);
  show("specificity", calls.slice(3), 3);
  show("precision", right, 3, "nothing is called malignant");
  show("negative_predictive_value", bounded(negative, calls, m), 3, "nothing is called benign");
  show("false_alarms", alarms, 1, s || p < 1 ? "false alarms only" : "nothing is called malignant");
  show("net_benefit", bounded(benefit, calls, m), 3);
  input("there").textContent = percent(m);
  const asked = new URLSearchParams({network: network.name, share: m});
  asked.set(locked ? "rule" : "threshold", locked ? input("rule").value : threshold);
  input("link").href = `#elsewhere?${asked}`;
}

// `#elsewhere?network=densenet121&threshold=0.3&share=0.1`, or `rule=sensitivity`.
function read() {
  const [place, asked] = location.hash.slice(1).split("?");
  if (place !== "elsewhere" || !asked) return;
  const wanted = new URLSearchParams(asked);
  const index = numbers.networks.findIndex((each) => each.name === wanted.get("network"));
  if (index >= 0) input("network").value = index;
  if (wanted.get("rule") in numbers.rules) input("rule").value = wanted.get("rule");
  if (Number(wanted.get("threshold")) > 0) {
    input("rule").value = "";
    input("threshold").value = nearest(Number(wanted.get("threshold")));
  }
  if (Number(wanted.get("share")) > 0) input("share").value = 100 * Number(wanted.get("share"));
  part.scrollIntoView();
}

input("threshold").addEventListener("input", () => { input("rule").value = ""; });
for (const name of ["network", "rule", "threshold", "share"]) {
  input(name).addEventListener("input", draw);
}
addEventListener("hashchange", () => { read(); draw(); });
part.querySelectorAll("[hidden]").forEach((each) => { each.hidden = false; });
part.querySelector("details").open = false;
input("threshold").max = numbers.thresholds.length - 1;
input("share").value = 100 * numbers.share;
read();
draw();
