// Polls the notes with an unfinished background job, and shows the result without a reload.
(() => {
  "use strict";

  const FIRST_DELAY = 400; // milliseconds
  const LONGEST_DELAY = 5000;
  const TIMEOUT = 120000;

  const show = (element, note) => {
    const count = document.createElement("b");
    count.textContent = note.word_count;
    element.querySelector(".badge").replaceChildren(count, note.word_count === 1 ? " word" : " words");
    element.querySelector(".by").textContent = `counted by ${note.counted_by}`;
    element.classList.remove("pending", "waiting");
    element.classList.add("done", "fresh");
    element.removeAttribute("data-poll");
  };

  const watch = (element) => {
    const started = Date.now();
    let delay = FIRST_DELAY;
    const poll = async () => {
      try {
        const response = await fetch(element.dataset.poll, { headers: { Accept: "application/json" } });
        if (response.status === 404) return;
        if (response.ok) {
          const note = await response.json();
          if (note.job_status === "done") return show(element, note);
        }
      } catch {
        // The network may recover: poll again, less often.
      }
      delay = Math.min(delay * 1.5, LONGEST_DELAY);
      if (Date.now() - started < TIMEOUT) setTimeout(poll, delay);
    };
    setTimeout(poll, delay);
  };

  document.querySelectorAll("[data-poll]").forEach(watch);

  document.querySelectorAll("time[datetime]").forEach((time) => {
    const moment = new Date(time.dateTime);
    if (!Number.isNaN(moment.getTime())) time.title = moment.toLocaleString();
  });
})();
