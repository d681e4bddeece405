// On paper nothing can be opened: open it before.
addEventListener("beforeprint", () =>
  document.querySelectorAll("details").forEach((one) => (one.open = true)));
