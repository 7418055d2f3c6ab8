// The stream of snapshots. A browser's EventSource connects again by itself when
// the connection breaks, but gives up when the answer is an error, as it is from a
// replica that is about to stop: this goes on.

const silenceLimit = 12_000; // ms without an event, before the connection is made anew
const firstDelay = 500;
const lastDelay = 8_000;

// watch calls onSnapshot with each snapshot, and onState with "connecting",
// "live" or "reconnecting" when that changes.
export function watch(onSnapshot, onState) {
  let source;
  let delay = firstDelay;
  let silence;
  let again;
  let state = 'connecting';

  function become(next) {
    if (state === next) return;
    state = next;
    onState(next);
  }

  function listen() {
    clearTimeout(silence);
    silence = setTimeout(reopen, silenceLimit);
  }

  function reopen() {
    source?.close();
    clearTimeout(silence);
    clearTimeout(again);
    become('reconnecting');
    again = setTimeout(open, delay * (0.75 + Math.random() / 2));
    delay = Math.min(delay * 2, lastDelay);
  }

  function open() {
    const mine = new EventSource('/events');
    source = mine;
    listen();
    mine.addEventListener('snapshot', (event) => {
      listen();
      delay = firstDelay;
      become('live');
      onSnapshot(JSON.parse(event.data));
    });
    mine.addEventListener('error', () => {
      if (mine !== source) return;
      if (mine.readyState === EventSource.CLOSED) reopen();
      else become('reconnecting');
    });
  }

  open();
}
