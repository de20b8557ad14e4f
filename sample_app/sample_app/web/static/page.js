// Watches the notes whose background job has not finished, and shows its end without a reload.
// The page works without this: a reload shows the same.
(() => {
  "use strict";

  const FIRST = 400; // milliseconds until the first question
  const LONGEST = 5000;
  const GIVE_UP = 120000;

  const say = (stamp, data) => {
    const mark = stamp.querySelector(".postmark");
    const by = stamp.querySelector(".by");
    const count = document.createElement("b");
    count.textContent = data.words;
    mark.replaceChildren(count, data.words === 1 ? " word" : " words");
    by.textContent = `stamped by ${data.stamped_by}`;
    stamp.classList.remove("pending", "waiting");
    stamp.classList.add("done", "fresh");
    stamp.removeAttribute("data-poll");
  };

  const watch = (stamp) => {
    const started = Date.now();
    let pause = FIRST;
    const ask = async () => {
      try {
        const answer = await fetch(stamp.dataset.poll, { headers: { Accept: "application/json" } });
        if (answer.status === 404) return;
        if (answer.ok) {
          const data = await answer.json();
          if (data.stamp === "done") return say(stamp, data);
        }
      } catch {
        // The network may come back: ask again, less often.
      }
      pause = Math.min(pause * 1.5, LONGEST);
      if (Date.now() - started < GIVE_UP) setTimeout(ask, pause);
    };
    setTimeout(ask, pause);
  };

  document.querySelectorAll("[data-poll]").forEach(watch);

  document.querySelectorAll("time[datetime]").forEach((time) => {
    const moment = new Date(time.dateTime);
    if (!Number.isNaN(moment.getTime())) time.title = moment.toLocaleString();
  });
})();
