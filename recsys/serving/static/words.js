// Names and numbers as people read them. What things are called comes from the schema.

/** A field's name: `zip_code` is "Zip code". */
export function label(name) {
  const words = name.replace(/[_\s]+/g, " ").trim() || name;
  return words[0].toUpperCase() + words.slice(1);
}

export const counted = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** Writes numbers that stand below each other: as many decimals each, three digits of the largest. */
export function aligned(values, signDisplay = "negative") {
  const largest = Math.max(0, ...values.map(Math.abs));
  const decimals = largest > 0 ? Math.min(Math.max(2 - Math.floor(Math.log10(largest)), 0), 9) : 2;
  const format = new Intl.NumberFormat("en", {minimumFractionDigits: decimals, maximumFractionDigits: decimals, signDisplay});
  return (value) => format.format(value).replace("-", "−");
}

/** A value of a field; years are not cut into thousands. */
export function written(value) {
  if (Array.isArray(value)) return value.map(written).join(", ");
  if (typeof value === "number") return String(Number(value.toPrecision(6)));
  if (typeof value === "boolean") return value ? "yes" : "no";
  return String(value);
}

/** The field that names an item: called so, or else the first of text. */
export function titleField(fields) {
  const names = Object.keys(fields);
  const called = ["title", "name", "label"].find((name) => names.includes(name));
  return called ?? names.find((name) => fields[name].kind === "text") ?? null;
}

/** How an item is shown: a title, and what else is known of it in one line. */
export function shown({id, metadata}, schema) {
  const named = titleField(schema.metadata_fields);
  const known = Object.entries(metadata ?? {}).filter(([, value]) => value !== null && written(value) !== "");
  const title = known.find(([name]) => name === named)?.[1] ?? id;
  const rest = known.filter(([name]) => name !== named).map(([, value]) => written(value));
  return {id, title: String(title), detail: rest.join(" · ")};
}

/** Who was answered, and from what. */
export function summary(n, path, {user, features, interactions}) {
  const whom = `${counted(n, "item")} for ${user === undefined ? "somebody new" : `user ${user}`}`;
  if (path === "cold") return `${whom}, of whom nothing is known: what is liked most.`;
  const told = [
    path === "hot" && "what they chose before",
    path === "warm" && !features && "what is known of them",
    features && "this description",
    interactions && "these picks",
  ];
  return `${whom}, from ${told.filter(Boolean).join(" and ")}.`;
}
