// The arithmetic of explanations: `{source, field, weight, contribution}`, whose contributions sum to a score.

// So many items of a history, and so many other fields, are told one by one.
const HISTORY = 4;
const FIELDS = 9;

const total = (values) => values.reduce((one, other) => one + other, 0);

export const keyOf = ({source, field}) => JSON.stringify([source, field]);

/** The weights of `parts` in all; null where none is told. */
function weightOf(parts) {
  const weights = parts.map(({weight}) => weight).filter((weight) => weight !== null);
  return weights.length ? total(weights) : null;
}

const contributionOf = (parts) => total(parts.map(({contribution}) => contribution));

/** The mean over items `{fields}` of what their fields weigh and add; a field that an item lacks adds nothing to it. */
export function mean(explained) {
  const n = explained.length;
  const groups = new Map();
  for (const part of explained.flatMap(({fields}) => fields)) {
    if (!groups.has(keyOf(part))) groups.set(keyOf(part), []);
    groups.get(keyOf(part)).push(part);
  }
  return [...groups.values()].map((parts) => {
    const weight = weightOf(parts);
    return {...parts[0], weight: weight === null ? null : weight / n, contribution: contributionOf(parts) / n};
  });
}

const sorted = (parts) => [...parts].sort((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution));

/** The `most` largest parts, and one for all others: what they weigh on average, and add together. */
function cut(parts, most, source) {
  if (parts.length <= most + 1) return parts;
  const rest = sorted(parts).slice(most);
  const weight = weightOf(rest);
  const others = {
    source, field: null, others: rest.length, contribution: contributionOf(rest), weight: weight === null ? null : weight / rest.length,
  };
  return [...sorted(parts).slice(0, most), others];
}

/** What is shown of an explanation, largest first; a long history would hide the fields. */
export function condensed(parts) {
  const isHistory = ({source}) => source === "history";
  const history = cut(parts.filter(isHistory), HISTORY, "history");
  return sorted([...history, ...cut(parts.filter((part) => !isHistory(part)), FIELDS, null)]);
}

/** The items of histories that may be shown, whose titles are to be asked for. */
export function historyItems(explained) {
  const shown = [mean(explained), ...explained.map(({fields}) => fields)].flatMap(condensed);
  return [...new Set(shown.filter(({source, others}) => source === "history" && !others).map(({field}) => field))];
}
