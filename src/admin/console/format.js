// Numbers and times as people read them.

/** A rate or a count: one decimal only while it matters. */
export function number(value) {
  if (value === null || value === undefined) return '–';
  const digits = value > 0 && value < 10 && !Number.isInteger(value) ? 1 : 0;
  return value.toLocaleString(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Seconds as ms or s. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds >= 1) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const ms = seconds * 1000;
  if (ms === 0) return '0';
  return `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}

/** 0 to 1 as a percentage. */
export function share(value) {
  if (value === null || value === undefined) return '–';
  const percent = value * 100;
  return `${percent === 0 ? '0' : percent < 10 ? percent.toFixed(1) : percent.toFixed(0)} %`;
}

export const sideName = (side) => (side === 'new' ? 'New' : 'Old');

export function span(seconds) {
  const units = [[86_400, 'd'], [3_600, 'h'], [60, 'min'], [1, 's']];
  const first = units.findIndex(([length]) => seconds >= length);
  if (first < 0) return '0 s';
  const [length, name] = units[first];
  const rest = units[first + 1] && first < 2 ? Math.floor((seconds % length) / units[first + 1][0]) : 0;
  return `${Math.floor(seconds / length)} ${name}${rest ? ` ${rest} ${units[first + 1][1]}` : ''}`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const DAY = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric' });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'long' });

/** A time of the viewer's zone: the clock, and the day unless it is today. */
export function when(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) return { short: text, full: text };
  const isToday = time.toDateString() === new Date().toDateString();
  return { short: isToday ? CLOCK.format(time) : `${DAY.format(time)}, ${CLOCK.format(time)}`, full: FULL.format(time) };
}
