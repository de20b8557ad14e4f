// Polls the notes with an unfinished background job, and shows the result without a reload.
const FIRST_DELAY = 400; // milliseconds
const LONGEST_DELAY = 5000;
const TIMEOUT = 120000;

function show(element, note) {
  const count = document.createElement("b");
  const worker = document.createElement("small");
  count.textContent = note.word_count;
  worker.textContent = `counted by ${note.counted_by}`;
  element.replaceChildren(count, note.word_count === 1 ? " word " : " words ", worker);
  element.classList.add("done");
}

async function poll(element, delay, end) {
  try {
    const response = await fetch(element.dataset.poll);
    const note = response.ok && (await response.json());
    if (note && note.word_count !== null) return show(element, note);
  } catch {
    // The network may recover: poll again, less often.
  }
  if (Date.now() < end) setTimeout(poll, delay, element, Math.min(delay * 1.5, LONGEST_DELAY), end);
}

document.querySelectorAll("[data-poll]").forEach((element) => {
  setTimeout(poll, FIRST_DELAY, element, FIRST_DELAY, Date.now() + TIMEOUT);
});

document.querySelectorAll("time[datetime]").forEach((time) => {
  time.title = new Date(time.dateTime).toLocaleString();
});
