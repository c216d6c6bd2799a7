// The dashboard. It asks the API that everybody has, listens to /api/events, and draws.
//
// Three rules. What comes from the server is put in as text, never as markup: log lines are written by attackers.
// What happens by itself is drawn at most four times a second, however much happens. A list is asked for by the page.

const DRAW_EVERY = 250; // ms between two drawings of what happens by itself
const STATUS_EVERY = 10_000; // ms; more often would use up the rate limit of whoever looks at it from two windows
const STATUS_HIDDEN_EVERY = 60_000;
const LIST_EVERY = 5_000; // ms between two loads of a list that changes by itself
const SILENCE_MAX = 20_000; // ms without an event until the connection counts as lost; samples come every 5 s
const ANSWER_MAX = 30_000; // ms for an answer
const FEED_MAX = 100;
const FEED_BURST = 12; // more bans and unbans than this in one drawing are a storm:
const STORM_LINE = 10_000; // all of those in so many ms are one line of the feed
const WAITING_MAX = 500; // events that wait for a drawing; further ones are only counted
const PAGE = 50;
const HOUR = 3_600_000;
const LINES_MISSED = 600_000; // ms without a log line until somebody should look
const STORM = 60; // bans in a minute that are worth a word

// ---------------------------------------------------------------------------------------------- building the page

const $ = (id) => document.getElementById(id);

/** An element. Strings become text; an array of children is spread out, nothing for null and false. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(
    ...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false && child !== ''),
  );
  return element;
}

/** Sets a text, and touches the page only if it is another. */
function say(element, text) {
  const wanted = String(text ?? '');
  if (element.textContent !== wanted) element.textContent = wanted;
}

const row = (attributes, ...cells) => el('tr', { role: 'row', ...attributes }, cells);

/** A cell. On a phone its label stands beside it. */
function cell(label, content, kind = '') {
  const inner = typeof content === 'string' || typeof content === 'number' ? el('span', {}, String(content)) : content;
  return el('td', { role: 'cell', class: kind || null, 'data-label': label || null }, content === '' ? null : inner);
}

function button(text, onclick, kind = 'quiet', label = null) {
  return el('button', { type: 'button', class: kind, 'aria-label': label, onclick }, text);
}

/** Says something to those who hear the page. */
function announce(text) {
  say($('announce'), text);
}

// ------------------------------------------------------------------------------------------------ numbers and times

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const minutes = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const full = new Intl.DateTimeFormat('en-GB', { dateStyle: 'full', timeStyle: 'long' });

const count = (n) => (Number.isFinite(n) ? whole.format(n) : '–');
const rate = (n) =>
  !Number.isFinite(n)
    ? '–'
    : n > 0 && n < 0.1
      ? '<0.1'
      : n < 10
        ? tenths.format(n)
        : n < 1e6
          ? whole.format(n)
          : short.format(n);
const many = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`;

/** A time of the API as milliseconds: RFC 3339, or milliseconds already. */
const millis = (at) => (typeof at === 'number' ? at : Date.parse(at));

/** A time of day; with the date, if it is another day than now. */
function when(at) {
  const time = new Date(millis(at));
  if (Number.isNaN(time.getTime())) return '–';
  const text = clock.format(time);
  return day.format(time) === day.format(new Date()) ? text : `${day.format(time)} ${text}`;
}

function timeOf(at) {
  const time = new Date(millis(at));
  if (Number.isNaN(time.getTime())) return '–';
  return el('time', { datetime: time.toISOString(), title: full.format(time) }, when(at));
}

/** Seconds in the two largest units that matter: `4m 12s`, `23h 5m`, `3d 4h`. */
function lasting(seconds) {
  let s = Math.max(0, Math.round(seconds));
  if (!Number.isFinite(s)) return '–';
  const parts = [];
  for (const [unit, size] of [
    ['d', 86_400],
    ['h', 3_600],
    ['m', 60],
    ['s', 1],
  ]) {
    if (s >= size || (unit === 's' && parts.length === 0)) {
      parts.push(`${Math.floor(s / size)}${unit}`);
      s %= size;
    } else if (parts.length > 0) {
      break;
    }
    if (parts.length === 2) break;
  }
  return parts.join(' ');
}

/** A countdown, by this browser's clock only from the moment of the answer on: clocks need not agree. */
function countdown(seconds) {
  const ends = performance.now() + seconds * 1000;
  const element = el('span', { 'data-ends': Math.round(ends) }, lasting(seconds));
  return element;
}

/** Whether a client is more than one subscriber: anything wider than an IPv4 address or an IPv6 /64. */
function isNetwork(client) {
  const [address, length] = String(client).split('/');
  return length !== undefined && Number(length) < (address.includes(':') ? 64 : 32);
}

/** How many addresses a network holds, in words. */
function holds(client) {
  const [address, length] = String(client).split('/');
  if (address.includes(':')) return `everything in a /${length}`;
  return many(2 ** (32 - Number(length)), 'address', 'addresses');
}

const looksLikeAddress = (text) => /^(\d{1,3}(\.\d{1,3}){3}|[0-9a-f:]*:[0-9a-f:.]*)(\/\d{1,3})?$/i.test(text);

function addressLink(client) {
  const address = String(client).split('/')[0];
  return el('a', { href: `#explain=${encodeURIComponent(address)}`, class: 'address' }, String(client));
}

// ------------------------------------------------------------------------------------------------------ asking

class Fault extends Error {}

let quietUntil = 0; // the API asked not to be asked before

/** Asks the API. Throws a Fault whose message is a sentence for whoever asked. */
async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(`api/${path}`, {
      method,
      cache: 'no-store',
      headers: body === undefined ? {} : { 'Content-Type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_MAX),
    });
  } catch (why) {
    throw new Fault(
      why.name === 'TimeoutError'
        ? `The server did not answer within ${ANSWER_MAX / 1000} seconds.`
        : 'The server cannot be reached.',
    );
  }
  let said = null;
  try {
    said = await answer.json();
  } catch {
    // Not ours: a proxy in between, or cut short.
  }
  if (answer.ok && said !== null && said.success !== false) return said;
  if (answer.status === 429) {
    const seconds = Number(answer.headers.get('Retry-After')) || 10;
    quietUntil = performance.now() + seconds * 1000;
    throw new Fault(`Too many requests from here. The server answers again in ${many(seconds, 'second')}.`);
  }
  const message = said !== null && typeof said.message === 'string' && said.message !== '' ? said.message : null;
  if (answer.status === 401)
    throw new Fault(message ?? 'The server asks for a name and a password. Load this page again.');
  if (message === null) throw new Fault(`The server answered with status ${answer.status}.`);
  // Some are said of what was asked about: "is on the whitelist".
  throw new Fault(
    sentence(/^(is|was|has) /.test(message) && said.ip_address ? `${said.ip_address} ${message}` : message),
  );
}

/** With a capital, unless it begins with the name of a field, and a full stop. */
function sentence(text) {
  const ended = /[.!?…]$/.test(text) ? text : `${text}.`;
  return /^[a-z]\S*[_:]/.test(ended) ? ended : ended[0].toUpperCase() + ended.slice(1);
}

const query = (fields) => {
  const set = Object.entries(fields).filter(([, value]) => value !== null && value !== undefined && value !== '');
  return set.length === 0 ? '' : `?${new URLSearchParams(set)}`;
};

/** Does what a control is for, with the control off meanwhile; what goes wrong is said in `where`. */
async function attempt(control, where, work) {
  say(where, '');
  if (control.disabled) return false;
  control.disabled = true;
  try {
    await work();
    return true;
  } catch (why) {
    if (!(why instanceof Fault)) throw why;
    say(where, why.message);
    return false;
  } finally {
    control.disabled = false;
  }
}

/** Asks whether that is really meant. */
function confirmed(title, text, yes) {
  const dialog = $('ask');
  if (dialog.open) return Promise.resolve(false);
  say($('ask-title'), title);
  say($('ask-text'), text);
  say($('ask-yes'), yes);
  dialog.returnValue = '';
  dialog.showModal();
  $('ask-no').focus();
  return new Promise((done) => {
    dialog.addEventListener('close', () => done(dialog.returnValue === 'yes'), { once: true });
  });
}
$('ask-no').addEventListener('click', () => $('ask').close('no'));
$('ask-yes').addEventListener('click', () => $('ask').close('yes'));

// --------------------------------------------------------------------------------------------------- what is known

const known = {
  status: null,
  statusFault: '',
  statusAt: -Infinity, // when it was asked for, and when it was answered last
  answeredAt: 0,
  samples: [], // of the last hour, oldest first
  historyFault: '',
  connected: null, // null: not yet
  lostAt: null,
  refused: null, // faults of a file that was refused, until there is a policy
  behind: new Map(), // shard → how many answers in a row it had an older policy
};

// ---------------------------------------------------------------------------------------------------- drawing

const due = new Set();
let drawTimer = null;
let drawnAt = 0;

/** Has a part of the page drawn soon: at once if nothing was drawn lately, else a quarter of a second after. */
function draw(part) {
  due.add(part);
  if (drawTimer === null) drawTimer = setTimeout(drawDue, Math.max(0, drawnAt + DRAW_EVERY - performance.now()));
}

function drawDue() {
  drawTimer = null;
  drawnAt = performance.now();
  const parts = [...due];
  due.clear();
  for (const part of parts) part();
}

// ------------------------------------------------------------------------------------------------- is all well?

/** What somebody should look at: `[how bad, sentence]`. */
function problems() {
  const found = [];
  const { status } = known;
  if (known.statusFault !== '') found.push(['warn', `The state of the server is not known: ${known.statusFault}`]);
  if (known.refused !== null) {
    const [first, ...more] = known.refused;
    found.push([
      'warn',
      `A changed configuration was refused; the one before stays in force. ${first ? sentence(first) : ''}${more.length > 0 ? ` And ${many(more.length, 'fault')} more.` : ''}`,
    ]);
  }
  if (status === null) return found;
  const mute = status.shards.filter((shard) => !shard.answers).map((shard) => shard.index);
  if (mute.length > 0)
    found.push([
      'bad',
      `${mute.length === 1 ? 'Shard' : 'Shards'} ${mute.join(', ')} of ${status.shards.length} did not answer in time.`,
    ]);
  const behind = [...known.behind].filter(([, times]) => times > 1).map(([index]) => index);
  if (behind.length > 0)
    found.push([
      'warn',
      `${behind.length === 1 ? 'Shard' : 'Shards'} ${behind.join(', ')} still ${behind.length === 1 ? 'works' : 'work'} by an older policy than ${status.policy}.`,
    ]);
  if (status.state_error) found.push(['bad', `Bans are not being kept on disk: ${status.state_error}`]);
  const { database } = status;
  if (database.enabled && !database.connected) {
    found.push([
      'warn',
      `The database is not connected${database.last_error ? `: ${database.last_error}` : ''}. What was in force stays in force.`,
    ]);
  }
  if (database.faulty_rows > 0)
    found.push([
      'warn',
      `${many(database.faulty_rows, 'row')} in the database ${database.faulty_rows === 1 ? 'is' : 'are'} faulty and left out. The log names them.`,
    ]);
  if (status.patterns === 0) found.push(['warn', 'There is no pattern, so no failed login is counted.']);
  const last = known.samples.at(-1);
  if (last?.dropped > 0)
    found.push(['warn', `Log lines are being dropped: ${rate(last.dropped / last.seconds)} a second.`]);
  const missing = withoutLines();
  if (missing !== null) found.push(['warn', missing]);
  return found;
}

/** What to say when no log line comes: then nobody is counted, and everything else looks well. */
function withoutLines() {
  const { status, samples } = known;
  if (status.totals.lines === 0) {
    return status.uptime_seconds > 120
      ? `No log line has arrived since the start, ${lasting(status.uptime_seconds)} ago. Nobody can be banned by what they do.`
      : null;
  }
  if (samples.length === 0) return null;
  const newest = millis(samples.at(-1).at);
  const seen = samples.findLast((sample) => sample.lines > 0);
  const since = millis((seen ?? samples[0]).at);
  return newest - since > LINES_MISSED
    ? `No log line has arrived for ${seen ? '' : 'more than '}${lasting((newest - since) / 1000)}.`
    : null;
}

/** What happened in so many milliseconds up to the last sample. */
function lately(key, ms) {
  if (known.samples.length === 0) return 0;
  const from = millis(known.samples.at(-1).at) - ms;
  let sum = 0;
  for (let i = known.samples.length - 1; i >= 0 && millis(known.samples[i].at) > from; i -= 1)
    sum += known.samples[i][key];
  return sum;
}

let healthSaid = '';

function drawHealth() {
  const found = problems();
  let state = 'good';
  let title = 'All is well';
  const lost = known.connected === false;
  const mute = lost && known.answeredAt > known.lostAt;
  if (mute) {
    state = 'warn';
    title = 'The server answers, but sends no live events';
  } else if (lost) {
    state = 'bad';
    title = `No connection to the server since ${when(known.lostAt)}`;
  } else if (known.connected === null || (known.status === null && found.length === 0)) {
    state = 'wait';
    title = 'Asking the server …';
  } else if (found.length > 0) {
    state = found.some(([how]) => how === 'bad') ? 'bad' : 'warn';
    title = state === 'bad' ? 'Something is wrong' : 'Somebody should look';
  }
  $('health').dataset.state = state;
  document.body.classList.toggle('stale', lost && !mute);
  const minute = lately('bans', 60_000);
  say(
    $('health-title'),
    state !== 'wait' && state !== 'bad' && minute >= STORM
      ? `${title}, but a storm: ${many(minute, 'ban')} in the last minute`
      : title,
  );
  say(
    $('health-says'),
    lost
      ? mute
        ? 'Trying again. Rates and the live list stand still meanwhile.'
        : 'Trying again. What is shown below is old. The server may well go on doing its work.'
      : inWords(),
  );
  const list = lost && !mute ? (known.statusFault === '' ? [] : [known.statusFault]) : found.map(([, text]) => text);
  const items = $('problems');
  if ([...items.children].map((item) => item.textContent).join('\n') !== list.join('\n')) {
    items.replaceChildren(...list.map((text) => el('li', {}, text)));
  }
  const spoken = [title, ...list.map((text) => text.replace(/\d[\d.,a-z]*/g, ''))].join(' ');
  if (spoken !== healthSaid && state !== 'wait') {
    if (healthSaid !== '' || state !== 'good') announce([title, ...list].join('. '));
    healthSaid = spoken;
  }
  const name = known.status?.node ? ` – ${known.status.node}` : '';
  document.title = `${state === 'bad' || state === 'warn' ? '(!) ' : ''}${viewTitle()}mailfail2ban${name}`;
  const colour = { good: '24724a', warn: 'd9920a', bad: 'c4372f', wait: '8592a1' }[state];
  const shape =
    state === 'good' || state === 'wait'
      ? "%3Ccircle cx='8' cy='8' r='7'"
      : "%3Crect x='1' y='1' width='14' height='14' rx='2'";
  const icon = `data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E${shape} fill='%23${colour}'/%3E%3C/svg%3E`;
  if ($('icon').getAttribute('href') !== icon) $('icon').setAttribute('href', icon);
}

/** What is going on, in a sentence or two. */
function inWords() {
  const last = known.samples.at(-1);
  if (last === undefined) return '';
  const asked = last.allowed + last.denied;
  const verdicts =
    asked === 0
      ? 'No proxy is asking'
      : `${rate(asked / last.seconds)} verdicts a second, ${last.denied === 0 ? 'none denied' : `${percent(last.denied / asked)} denied`}`;
  const five = lately('bans', 300_000);
  return `${verdicts}. ${many(last.banned, 'ban')} in force, ${five === 0 ? 'none new' : `${count(five)} new`} in the last five minutes.`;
}

const percent = (part) =>
  part < 0.001 ? '<0.1 %' : part < 0.1 ? `${tenths.format(part * 100)} %` : `${whole.format(part * 100)} %`;

function drawTiles() {
  const last = known.samples.at(-1);
  for (const key of ['allowed', 'denied', 'lines', 'matches']) {
    say($(`rate-${key}`), last === undefined ? '–' : rate(last[key] / last.seconds));
  }
  say($('banned'), count(last?.banned ?? known.status?.banned));
  const hour = lately('bans', HOUR);
  say($('banned-new'), known.samples.length === 0 ? '' : `+${short.format(hour)} this hour`);
}

function drawServer() {
  const { status } = known;
  say($('server-error'), known.connected === false ? '' : known.statusFault);
  if (status === null) return;
  say($('node'), status.node);
  say($('server-version'), `version ${status.version}`);
  const { database } = status;
  const facts = [
    ['Running for', lasting(status.uptime_seconds)],
    ['Event loop', status.driver],
    [
      'Policy',
      `number ${count(status.policy)}: ${many(status.patterns, 'pattern')}, ${many(status.whitelist, 'entry', 'entries')} on the whitelist, ${count(status.blacklist)} on the blacklist`,
    ],
    ['Patterns from', words(database.patterns_source)],
    ['Ban settings from', words(database.ban_config_source)],
    [
      'Database',
      !database.enabled
        ? 'not in use'
        : database.connected
          ? 'connected'
          : `not connected${database.last_error ? `: ${database.last_error}` : ''}`,
      database.enabled && !database.connected ? 'warn' : '',
    ],
    database.enabled && database.connected && database.last_error ? ['Its last error', database.last_error] : null,
    database.faulty_rows > 0 ? ['Faulty rows', count(database.faulty_rows), 'warn'] : null,
    ['Local state', status.state_error ?? 'no error', status.state_error ? 'bad' : ''],
    ['Failures of', `${many(status.counting, 'client')} are being counted`],
    ['Offences of', `${many(status.remembered, 'client')} are remembered`],
    [
      'Since the start',
      `${count(status.totals.lines)} log lines, ${count(status.totals.matches)} matched, ${count(status.totals.dropped)} dropped; ${count(status.totals.bans)} bans`,
    ],
    ['Verdicts', `${count(status.totals.allowed)} allowed, ${count(status.totals.denied)} denied`],
  ].filter((fact) => fact !== null);
  $('server').replaceChildren(
    ...facts.flatMap(([name, text, kind]) => [
      el('dt', {}, name),
      el('dd', { class: kind || null }, String(text ?? '–')),
    ]),
  );
  $('shards').tBodies[0].replaceChildren(
    ...status.shards.map((shard) =>
      row(
        {},
        cell('Shard', shard.index),
        cell(
          'State',
          el('span', { class: shard.answers ? 'pill good' : 'pill bad' }, shard.answers ? 'answers' : 'silent'),
        ),
        cell('Policy', shard.answers ? count(shard.policy) : '–', 'number'),
        cell('Bans held', shard.answers ? count(shard.replica) : '–', 'number'),
        cell('Connections', shard.answers ? count(shard.connections) : '–', 'number'),
        cell('Backlog', shard.answers ? count(shard.backlog) : '–', 'number'),
        cell('Questions', shard.answers ? count(shard.questions) : '–', 'number'),
        cell('Log records', shard.answers ? count(shard.records) : '–', 'number'),
      ),
    ),
  );
}

const SOURCES = { file: 'the file', database: 'the database', database_cached: 'the last good copy of the database' };
const words = (source) => SOURCES[source] ?? String(source ?? '–');

let patternsShown = 10;

function drawPatterns() {
  if (known.status === null) return;
  const table = $('patterns');
  if (table.contains(document.activeElement)) return;
  const all = [...known.status.by_pattern].sort(
    (a, b) => b.matches - a.matches || b.banned - a.banned || a.name.localeCompare(b.name),
  );
  const most = Math.max(1, ...all.slice(0, 1).map((pattern) => pattern.matches));
  table.tBodies[0].replaceChildren(
    ...all
      .slice(0, patternsShown)
      .map((pattern) =>
        row(
          {},
          cell('', el('a', { href: `#bans=${encodeURIComponent(pattern.name)}` }, pattern.name), 'all'),
          cell('Severity', count(pattern.severity), 'number'),
          cell('Matches', count(pattern.matches), 'number'),
          cell('', bar(pattern.matches / most), 'bars'),
          cell('Bans', count(pattern.bans), 'number'),
          cell('Banned now', count(pattern.banned), 'number'),
        ),
      ),
  );
  $('patterns').hidden = all.length === 0;
  $('patterns-empty').hidden = all.length > 0;
  const more = all.length - patternsShown;
  $('patterns-more').hidden = more <= 0;
  say($('patterns-more'), `Show ${count(Math.min(50, more))} more of ${count(all.length)}`);
}
$('patterns-more').addEventListener('click', () => {
  patternsShown += 50;
  drawPatterns();
});

const bar = (share) =>
  svg(
    'svg',
    { class: 'bar-line', viewBox: '0 0 100 8', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    svg('rect', { width: Math.max(share > 0 ? 0.5 : 0, share * 100), height: 8 }),
  );

// ------------------------------------------------------------------------------------------------------ charts

const CHARTS = [
  {
    title: 'Verdicts a second',
    series: [
      ['denied', true],
      ['allowed', false],
    ],
  },
  { title: 'Log lines a second', series: [['lines', false]] },
  { title: 'Failed logins a second', series: [['matches', false]] },
  { title: 'Bans in force', series: [['banned', false]], level: true },
].map((chart, index) => {
  const now = el('span', { class: 'now' });
  const image = svg('svg', { role: 'img' });
  const figure = el(
    'figure',
    { class: 'chart', tabindex: '0', role: 'group', 'aria-label': chart.title },
    el('figcaption', {}, el('span', {}, chart.title), now),
    image,
  );
  figure.addEventListener('pointermove', (event) => point(atPixel(event)));
  figure.addEventListener('pointerleave', () => point(null));
  figure.addEventListener('blur', () => point(null));
  figure.addEventListener('keydown', (event) => walk(event, index));
  $('charts').append(figure);
  return { ...chart, figure, image, now };
});

const CHART_HEIGHT = 136;
const TOP = 14;
const BOTTOM = CHART_HEIGHT - 18;
let pointed = null; // the number of the sample that is pointed at

function atPixel(event) {
  const box = event.currentTarget.querySelector('svg').getBoundingClientRect();
  if (known.samples.length === 0 || box.width === 0) return null;
  const newest = millis(known.samples.at(-1).at);
  const time = newest - HOUR + ((event.clientX - box.left) / box.width) * HOUR;
  let best = 0;
  for (let i = 1; i < known.samples.length; i += 1) {
    if (Math.abs(millis(known.samples[i].at) - time) < Math.abs(millis(known.samples[best].at) - time)) best = i;
  }
  return best;
}

function point(index) {
  if (index === pointed) return;
  pointed = index;
  draw(drawCharts);
}

function walk(event, index) {
  const last = known.samples.length - 1;
  if (last < 0) return;
  const from = pointed ?? last;
  const to = {
    ArrowLeft: from - 1,
    ArrowRight: from + 1,
    PageUp: from - 60,
    PageDown: from + 60,
    Home: 0,
    End: last,
    Escape: null,
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  point(to === null ? null : Math.min(last, Math.max(0, to)));
  if (pointed !== null)
    announce(`${when(known.samples[pointed].at)}: ${chartSays(CHARTS[index], known.samples[pointed])}`);
}

const valueOf = (chart, key, sample) => (chart.level ? sample[key] : sample[key] / (sample.seconds || 1));

const chartSays = (chart, sample) =>
  chart.series.length > 1
    ? [...chart.series]
        .reverse()
        .map(([key]) => `${rate(valueOf(chart, key, sample))} ${key}`)
        .join(', ')
    : chart.level
      ? count(valueOf(chart, chart.series[0][0], sample))
      : rate(valueOf(chart, chart.series[0][0], sample));

/** The next round number that is at least as much. */
function roundUp(most) {
  if (most <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((value) => value >= most);
}

function drawCharts() {
  if (current.view !== 'now') return;
  const { samples } = known;
  if (pointed !== null && pointed >= samples.length) pointed = null;
  const at = pointed === null ? null : samples[pointed];
  say($('charts-at'), at === null ? 'Point at a chart, or use the arrow keys on it' : when(at.at));
  say($('charts-error'), known.historyFault);
  for (const chart of CHARTS) drawChart(chart, at);
}

function drawChart(chart, at) {
  const { image, series } = chart;
  const { samples } = known;
  const width = image.clientWidth;
  if (width === 0) return;
  image.setAttribute('viewBox', `0 0 ${width} ${CHART_HEIGHT}`);
  const newest = samples.length === 0 ? Date.now() : millis(samples.at(-1).at);
  const x = (time) => ((time - newest + HOUR) / HOUR) * width;
  const total = (sample) => series.reduce((sum, [key]) => sum + valueOf(chart, key, sample), 0);
  const most = samples.reduce((max, sample) => Math.max(max, total(sample)), 0);
  const top = roundUp(most);
  const y = (value) => BOTTOM - (value / top) * (BOTTOM - TOP);
  const parts = [];

  // Where it is long between two samples, there is a hole: the server did not run, or the page did not listen.
  const runs = [];
  samples.forEach((sample, i) => {
    const time = millis(sample.at);
    if (i === 0 || time - millis(samples[i - 1].at) > 4000 * Math.max(sample.seconds, 5)) runs.push([]);
    runs.at(-1).push(sample);
  });
  for (const run of runs) {
    let below = run.map(() => 0);
    for (const [key, deny] of series) {
      const above = run.map((sample, i) => below[i] + valueOf(chart, key, sample));
      const points = (values) => values.map((value, i) => `${x(millis(run[i].at)).toFixed(1)},${y(value).toFixed(1)}`);
      const upper = points(above);
      const kind = deny ? 'deny ' : '';
      if (above.some((value, i) => value > below[i])) {
        parts.push(
          svg('path', { class: `${kind}area`, d: `M${upper.join('L')}L${points(below).reverse().join('L')}Z` }),
        );
        parts.push(svg('path', { class: `${kind}curve`, d: `M${upper.join('L')}` }));
      }
      below = above;
    }
  }
  for (const share of [0, 0.5, 1]) {
    const line = Math.round(y(top * share)) + 0.5;
    parts.unshift(svg('line', { class: 'grid', x1: 0, x2: width, y1: line, y2: line }));
    if (share > 0)
      parts.push(
        svg(
          'text',
          { class: 'tick', x: 0, y: line - 3 },
          top >= 10_000 ? short.format(top * share) : tenths.format(top * share),
        ),
      );
  }
  const quarter = HOUR / 4;
  for (let time = Math.ceil((newest - HOUR) / quarter) * quarter; time <= newest; time += quarter) {
    const place = x(time);
    const anchor = place < 20 ? 'start' : place > width - 20 ? 'end' : 'middle';
    parts.push(
      svg(
        'text',
        { class: 'tick', x: place.toFixed(1), y: CHART_HEIGHT - 4, 'text-anchor': anchor },
        minutes.format(new Date(time)),
      ),
    );
  }
  if (at !== null) {
    const place = Math.round(x(millis(at.at))) + 0.5;
    parts.push(svg('line', { class: 'cursor', x1: place, x2: place, y1: TOP, y2: BOTTOM }));
  }
  image.replaceChildren(...parts);

  const shown = at ?? samples.at(-1);
  if (shown === undefined) say(chart.now, 'no sample yet');
  else if (series.length === 1) say(chart.now, chartSays(chart, shown));
  else {
    const key = (name, deny) => [
      el('span', { class: deny ? 'key deny' : 'key', 'aria-hidden': 'true' }),
      `${rate(valueOf(chart, name, shown))} ${name}`,
    ];
    chart.now.replaceChildren(...key('allowed', false), ...key('denied', true));
  }
  const peak = samples.length === 0 ? '' : `; at most ${rate(most)} in the last hour`;
  image.setAttribute(
    'aria-label',
    shown === undefined ? 'No sample yet' : `Now ${chartSays(chart, samples.at(-1))}${peak}`,
  );
}

new ResizeObserver(() => draw(drawCharts)).observe($('charts'));

// -------------------------------------------------------------------------------------------------- what happens

let waiting = []; // events that are not drawn yet
let unseen = 0; // events that came while too many waited
let paused = false;
let recentLoaded = false;

const HAPPENED = {
  ban: (e) => [
    e.learned ? 'Ban learned' : 'Ban',
    addressLink(e.ip_address),
    ` ${e.created_by ? `by ${e.created_by}` : e.pattern}, for ${lasting((millis(e.expires_at) - millis(e.at)) / 1000)}${e.offences > 1 ? `, offence ${e.offences}` : ''}`,
  ],
  unban: (e) => [
    'Unban',
    addressLink(e.ip_address),
    `${e.created_by ? ` by ${e.created_by}` : ''}${e.reason ? `: ${e.reason}` : ''}`,
  ],
  policy: (e) => [
    'Policy',
    `${count(e.number)} in force: ${many(e.patterns, 'pattern')}, whitelist ${count(e.whitelist)}, blacklist ${count(e.blacklist)}`,
  ],
  list: (e) => [
    e.list === 'whitelist' ? 'Whitelist' : 'Blacklist',
    addressLink(e.ip_address),
    ` ${e.added ? 'added' : 'removed'}${e.created_by ? ` by ${e.created_by}` : ''}`,
  ],
  database: (e) => ['Database', e.connected ? 'connected' : 'connection lost'],
  refused: (e) => ['Configuration refused', (e.faults ?? []).slice(0, 3).join('; ')],
  lagged: (e) => ['Too fast', `${many(e.missed, 'event')} not shown`],
};

function happened(kind, text) {
  lastEventAt = performance.now();
  let event;
  try {
    event = JSON.parse(text);
  } catch {
    return;
  }
  if (kind === 'sample') return sampled(event);
  if (waiting.length < WAITING_MAX) waiting.push({ ...event, kind });
  else unseen += 1;
  if (kind === 'policy') known.refused = null;
  if (kind === 'refused') known.refused = event.faults ?? [];
  if (kind === 'database' && known.status !== null) known.status.database.connected = event.connected;
  if (kind === 'policy' || kind === 'refused' || kind === 'database') draw(drawHealth);
  if (kind === 'policy' || kind === 'database') askStatusSoon();
  if (kind === 'ban' || kind === 'unban' || kind === 'lagged') bansChanged(kind, event);
  if (kind === 'list') listChanged(event.list);
  if (kind !== 'policy' && kind !== 'database') explainChanged(event.ip_address);
  draw(drawFeed);
}

function sampled(sample) {
  known.samples.push(sample);
  trimSamples();
  if (pointed !== null && pointed > 0) pointed = Math.max(0, pointed - trimmed);
  draw(drawTiles);
  draw(drawCharts);
  draw(drawHealth);
  draw(drawBansCount);
}

let trimmed = 0;
function trimSamples() {
  const oldest = millis(known.samples.at(-1).at) - HOUR;
  trimmed = known.samples.findIndex((sample) => millis(sample.at) >= oldest);
  if (trimmed > 0) known.samples.splice(0, trimmed);
}

function drawFeed() {
  if (paused) {
    if (waiting.length > FEED_MAX) unseen += waiting.splice(0, waiting.length - FEED_MAX).length;
    return;
  }
  const feed = $('feed');
  const events = waiting;
  waiting = [];
  const storm = stormOf(events);
  const lines = events
    .filter((event) => storm === null || (event.kind !== 'ban' && event.kind !== 'unban'))
    .map(feedLine);
  if (unseen > 0)
    lines.push(
      feedItem(
        'trouble',
        events.at(-1)?.at ?? new Date().toISOString(),
        'And more',
        ` ${many(unseen, 'event')} not shown`,
      ),
    );
  unseen = 0;
  feed.prepend(...lines.slice(-FEED_MAX).reverse());
  if (storm !== null) feed.prepend(storm);
  while (feed.childElementCount > FEED_MAX) feed.lastElementChild.remove();
  $('feed-empty').hidden = feed.childElementCount > 0;
}

let blowing = null; // the storm of these seconds: when it began, what it counts, its line in the feed

/** The line of a storm, if these events are one or go on with one. */
function stormOf(events) {
  const bans = events.filter((event) => event.kind === 'ban');
  const lifts = events.filter((event) => event.kind === 'unban');
  const now = performance.now();
  if (blowing !== null && now - blowing.since > STORM_LINE) blowing = null;
  if (bans.length + lifts.length <= (blowing === null ? FEED_BURST : 0)) return null;
  blowing ??= { since: now, bans: 0, lifts: 0, patterns: new Map(), line: null };
  blowing.bans += bans.length;
  blowing.lifts += lifts.length;
  for (const ban of bans) blowing.patterns.set(ban.pattern, (blowing.patterns.get(ban.pattern) ?? 0) + 1);
  if (unseen > 0) {
    // They came faster than they are drawn; nearly all of them are bans.
    blowing.bans += unseen;
    blowing.patterns.set('not looked at', (blowing.patterns.get('not looked at') ?? 0) + unseen);
    unseen = 0;
  }
  const what = [
    blowing.bans > 0 ? many(blowing.bans, 'ban') : '',
    blowing.lifts > 0 ? many(blowing.lifts, 'unban') : '',
  ]
    .filter(Boolean)
    .join(', ');
  const line = feedItem(
    blowing.bans > 0 ? 'ban' : 'unban',
    (bans.at(-1) ?? lifts.at(-1)).at,
    what,
    blowing.bans > 0 ? ` ${byPattern(blowing.patterns)}` : '',
  );
  blowing.line?.remove();
  blowing.line = line;
  return line;
}

/** Which patterns made bans, the busiest first. */
function byPattern(sums) {
  const sorted = [...sums].sort((a, b) => b[1] - a[1]);
  const rest = sorted.slice(3).reduce((sum, [, n]) => sum + n, 0);
  return (
    sorted
      .slice(0, 3)
      .map(([name, n]) => `${name} ${count(n)}`)
      .join(', ') + (rest > 0 ? `, others ${count(rest)}` : '')
  );
}

function feedLine(event) {
  const [what, ...text] = HAPPENED[event.kind](event);
  const trouble =
    event.kind === 'refused' || event.kind === 'lagged' || (event.kind === 'database' && !event.connected);
  return feedItem(trouble ? 'trouble' : event.kind, event.at ?? new Date().toISOString(), what, ' ', ...text);
}

const feedItem = (kind, at, what, ...text) =>
  el('li', { class: kind }, timeOf(at), el('p', {}, el('span', { class: 'what' }, what), text));

$('feed-pause').addEventListener('click', () => {
  paused = !paused;
  $('feed-pause').setAttribute('aria-pressed', String(paused));
  say($('feed-pause'), paused ? 'Go on' : 'Pause');
  drawFeed();
});

/** So that the feed says something when it is opened: the newest bans. */
async function recentBans() {
  if (recentLoaded) return;
  try {
    const page = await ask('GET', `temp-bans${query({ limit: 10, sort: 'banned_at', order: 'desc' })}`);
    recentLoaded = true;
    const lines = page.temp_bans.map((ban) => feedLine({ at: ban.banned_at, ...ban, kind: 'ban' }));
    $('feed').append(...lines.slice(0, Math.max(0, FEED_MAX - $('feed').childElementCount)));
    $('feed-empty').hidden = $('feed').childElementCount > 0;
  } catch (why) {
    if (!(why instanceof Fault)) throw why;
  }
}

// ------------------------------------------------------------------------------------------------- the connection

let stream = null;
let lastEventAt = performance.now();
let openedAt = 0;
let pauseBeforeOpening = 1000;
let openTimer = null;

function open() {
  openTimer = null;
  stream?.close();
  openedAt = performance.now();
  stream = new EventSource('api/events');
  stream.addEventListener('open', opened);
  stream.addEventListener('error', failed);
  for (const kind of [...Object.keys(HAPPENED), 'sample']) {
    stream.addEventListener(kind, (event) => happened(kind, event.data));
  }
}

function opened() {
  pauseBeforeOpening = 1000;
  lastEventAt = performance.now();
  const again = known.connected === false;
  known.connected = true;
  known.lostAt = null;
  draw(drawHealth);
  everything();
  if (again) {
    announce('Connected again.');
    show(current, true);
  }
}

function failed() {
  lost();
  // A browser tries again by itself when the connection broke, but not after an answer that is no stream.
  // Then the API can say why.
  if (stream.readyState === EventSource.CLOSED) {
    openLater();
    if (performance.now() - known.statusAt > STATUS_EVERY && performance.now() > quietUntil) askStatus();
  }
}

function lost() {
  if (known.connected !== false) {
    known.connected = false;
    known.lostAt = Date.now();
  }
  draw(drawHealth);
}

function openLater() {
  if (openTimer !== null) return;
  openTimer = setTimeout(open, pauseBeforeOpening);
  pauseBeforeOpening = Math.min(15_000, pauseBeforeOpening * 2);
}

/** A connection can die without a word. Then samples stop. */
function watch() {
  const now = performance.now();
  if (openTimer === null && now - Math.max(lastEventAt, openedAt) > SILENCE_MAX) {
    lost();
    stream.close();
    openLater();
  }
}

/** All that may have changed while nobody listened. */
function everything() {
  askHistory();
  askStatus();
  recentBans();
}

async function askHistory() {
  try {
    const { samples } = await ask('GET', 'history');
    // What came live meanwhile is not in there.
    const newest = samples.length === 0 ? -Infinity : millis(samples.at(-1).at);
    known.samples = [...samples, ...known.samples.filter((sample) => millis(sample.at) > newest)];
    known.historyFault = '';
    if (known.samples.length > 0) trimSamples();
  } catch (why) {
    if (!(why instanceof Fault)) throw why;
    known.historyFault = `The history could not be read. ${why.message}`;
  }
  for (const part of [drawTiles, drawCharts, drawHealth]) draw(part);
}

let askingStatus = false;

async function askStatus() {
  if (askingStatus) return;
  askingStatus = true;
  known.statusAt = performance.now();
  try {
    const status = await ask('GET', 'status');
    known.status = status;
    if (known.refused === null && status.refused.length > 0) known.refused = status.refused;
    document.body.classList.toggle('looks-only', !status.you.may_change);
    known.answeredAt = Date.now();
    known.statusFault = '';
    for (const shard of status.shards) {
      const late = shard.answers && shard.policy !== status.policy;
      known.behind.set(shard.index, late ? (known.behind.get(shard.index) ?? 0) + 1 : 0);
    }
  } catch (why) {
    if (!(why instanceof Fault)) throw why;
    known.statusFault = why.message;
  } finally {
    askingStatus = false;
  }
  for (const part of [drawHealth, drawTiles, drawServer, drawPatterns, drawPatternChoice]) draw(part);
}

let statusSoon = null;
function askStatusSoon() {
  if (statusSoon === null) {
    statusSoon = setTimeout(() => {
      statusSoon = null;
      askStatus();
    }, 1000);
  }
}

/** Once a second: what time does. */
function tick() {
  watch();
  const now = performance.now();
  const every = document.hidden ? STATUS_HIDDEN_EVERY : STATUS_EVERY;
  if (known.connected && now - known.statusAt > every && now > quietUntil) askStatus();
  if (document.hidden) return;
  for (const element of document.querySelectorAll('.view:not([hidden]) [data-ends]')) {
    const left = (Number(element.dataset.ends) - now) / 1000;
    say(element, left > 0 ? lasting(left) : 'ended');
  }
  bansTick(now);
  listsTick(now);
  explainTick(now);
}

document.addEventListener('visibilitychange', () => {
  if (!document.hidden) {
    tick();
    draw(drawCharts);
  }
});

// ------------------------------------------------------------------------------------------------- bans in force

const bans = {
  cursors: [], // how the pages before this one were asked for
  cursor: null,
  next: null,
  total: null,
  search: '',
  pattern: '',
  sort: 'banned_at',
  order: 'desc',
  loadedAt: 0,
  changed: false,
  asked: 0, // the number of the newest question; older answers are thrown away
};

/** A whole address finds the networks that hold it too, and a network what is in it; all else is a part of a name. */
const searched = () =>
  /^\d+\.\d+\.\d+\.\d+$|\/\d+$/.test(bans.search) ? { ip: bans.search } : { search: bans.search };

async function loadBans() {
  bans.asked += 1;
  const mine = bans.asked;
  bans.changed = false;
  bans.loadedAt = performance.now();
  let page;
  try {
    page = await ask(
      'GET',
      `temp-bans${query({ limit: PAGE, cursor: bans.cursor, sort: bans.sort, order: bans.order, ...searched(), pattern: bans.pattern })}`,
    );
  } catch (why) {
    if (!(why instanceof Fault)) throw why;
    if (mine === bans.asked) say($('bans-error'), `The list could not be read. ${why.message}`);
    return;
  }
  if (mine !== bans.asked) return;
  say($('bans-error'), '');
  bans.next = page.next_cursor ?? null;
  bans.total = page.total ?? page.count;
  $('bans').tBodies[0].replaceChildren(...page.temp_bans.map(banRow));
  $('bans').hidden = page.temp_bans.length === 0;
  drawNoBans(page.temp_bans.length);
  $('bans-back').disabled = bans.cursors.length === 0;
  $('bans-next').disabled = bans.next === null;
  const first = bans.cursors.length * PAGE + 1;
  const filtered = bans.search !== '' || bans.pattern !== '';
  say(
    $('bans-page'),
    page.temp_bans.length === 0
      ? ''
      : `${count(first)}–${count(first + page.temp_bans.length - 1)} of ${count(bans.total)}${filtered ? ' that match' : ''}`,
  );
  drawSorted();
  drawBansCount();
  drawNews();
}

function drawNoBans(shown) {
  const empty = $('bans-empty');
  empty.hidden = shown > 0;
  if (shown > 0) return;
  if (bans.search === '' && bans.pattern === '')
    say(empty, bans.cursors.length > 0 ? 'Nothing on this page any more.' : 'Nobody is banned.');
  else if (looksLikeAddress(bans.search))
    empty.replaceChildren(
      `No ban of ${bans.search} is in force. `,
      el('a', { href: `#explain=${encodeURIComponent(bans.search.split('/')[0])}` }, 'Explain it'),
    );
  else say(empty, 'No ban matches.');
}

function drawBansCount() {
  const all =
    known.samples.at(-1)?.banned ??
    known.status?.banned ??
    (bans.search === '' && bans.pattern === '' ? bans.total : null);
  say($('bans-count'), all === null || all === undefined ? '' : count(all));
}

function banRow(ban) {
  const actions = el('td', { role: 'cell', class: 'actions' });
  const line = row(
    { 'data-client': ban.ip_address },
    cell('', addressLink(ban.ip_address), 'address'),
    cell('Pattern', `${ban.pattern}${ban.learned ? ' (learned)' : ''}`, 'all'),
    cell('Severity', count(ban.severity), 'number'),
    cell('Failures', count(ban.failures), 'number'),
    cell('Offences', count(ban.offences), 'number'),
    cell('Since', timeOf(ban.banned_at), 'all'),
    cell('Ends in', countdown(ban.duration_remaining_seconds), 'all'),
    actions,
  );
  const error = el('p', { class: 'error', role: 'alert' });
  const end = button(
    'Unban',
    () =>
      unban(ban.ip_address, end, error, () => {
        rowGone(line, actions, 'ended');
        announce(`${ban.ip_address} is not banned any more.`);
      }),
    'quiet unban',
    `Unban ${ban.ip_address}`,
  );
  actions.append(end, error);
  return line;
}

/** The row stays where it is, so that none comes under a finger that is about to press the next button. */
function rowGone(line, actions, how) {
  line.classList.add('gone');
  actions.replaceChildren(el('span', {}, how));
  line.querySelector('a').focus();
}

/** Ends a ban, after a question if it is a network's. */
async function unban(client, control, error, done) {
  if (
    isNetwork(client) &&
    !(await confirmed(
      `Unban ${client}?`,
      `This network holds ${holds(client)}. All of them may come in again.`,
      `Unban ${client}`,
    ))
  )
    return;
  await attempt(control, error, async () => {
    const answer = await ask('POST', 'unban', { ip_address: client, reason: 'from the dashboard' });
    done(answer);
    if (answer.still_denied_by) say(error, `It is still denied, by ${answer.still_denied_by}.`);
  });
}

function bansChanged(kind, event) {
  bans.changed = true;
  if (current.view !== 'bans') return;
  if (kind === 'unban') goneRows.add(event.ip_address);
  draw(drawGone);
  draw(drawNews);
}

const goneRows = new Set();
function drawGone() {
  if (goneRows.size > 0) {
    for (const line of $('bans').tBodies[0].rows) {
      if (
        goneRows.has(line.dataset.client) &&
        !line.classList.contains('gone') &&
        !line.contains(document.activeElement)
      ) {
        line.classList.add('gone');
        line.querySelector('.actions').replaceChildren(el('span', {}, 'ended'));
      }
    }
  }
  goneRows.clear();
}

/** Whether rows may move: not while somebody is about to click on one. */
const bansInUse = () =>
  bans.cursors.length > 0 || $('bans').tBodies[0].matches(':hover, :focus-within') || $('ask').open;

function drawNews() {
  const news = $('bans-news');
  news.hidden = !(bans.changed && bansInUse());
  say(
    news,
    bans.cursors.length > 0 ? 'The list has changed. Show its beginning' : 'The list has changed. Show it again',
  );
}

function bansTick(now) {
  if (current.view !== 'bans' || !known.connected) return;
  if (bans.changed && !bansInUse() && now - bans.loadedAt >= LIST_EVERY && now > quietUntil) loadBans();
  else drawNews();
}

function firstPage() {
  bans.cursors = [];
  bans.cursor = null;
  return loadBans();
}

function drawSorted() {
  $('bans-sort').value = `${bans.sort} ${bans.order}`;
  for (const head of $('bans').tHead.querySelectorAll('[data-sort]')) {
    if (head.dataset.sort === bans.sort)
      head.setAttribute('aria-sort', bans.order === 'asc' ? 'ascending' : 'descending');
    else head.removeAttribute('aria-sort');
  }
}

for (const head of $('bans').tHead.querySelectorAll('[data-sort]')) {
  const name = head.textContent;
  head.replaceChildren(
    button(
      name,
      () => {
        const turned = bans.sort === head.dataset.sort;
        bans.order = turned
          ? bans.order === 'asc'
            ? 'desc'
            : 'asc'
          : head.dataset.sort === 'ip_address' || head.dataset.sort === 'expires_at'
            ? 'asc'
            : 'desc';
        bans.sort = head.dataset.sort;
        firstPage();
      },
      'order',
    ),
  );
}
$('bans-sort').addEventListener('change', () => {
  [bans.sort, bans.order] = $('bans-sort').value.split(' ');
  firstPage();
});

/** Has `search` called with what is typed, once the typing pauses, or at once when it is sent. */
function searchBox(input, search) {
  let timer = null;
  let searched = '';
  const now = () => {
    clearTimeout(timer);
    const wanted = input.value.trim();
    if (wanted !== searched) search((searched = wanted));
  };
  input.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(now, 300);
  });
  input.form.addEventListener('submit', (event) => {
    event.preventDefault();
    now();
  });
}
searchBox($('bans-search'), (text) => {
  bans.search = text;
  firstPage();
});
$('bans-pattern').addEventListener('change', () => {
  bans.pattern = $('bans-pattern').value;
  firstPage();
});
$('bans-next').addEventListener('click', () => {
  if (bans.next === null) return;
  bans.cursors.push(bans.cursor);
  bans.cursor = bans.next;
  loadBans();
});
$('bans-back').addEventListener('click', () => {
  if (bans.cursors.length === 0) return;
  bans.cursor = bans.cursors.pop();
  loadBans();
});
$('bans-news').addEventListener('click', () => {
  $('bans-search').focus();
  firstPage();
});

/** The patterns to choose from: those with the most bans; more would not be found in a menu. */
function drawPatternChoice() {
  const select = $('bans-pattern');
  if (known.status === null || select === document.activeElement) return;
  const names = [...known.status.by_pattern]
    .filter((pattern) => pattern.banned > 0)
    .sort((a, b) => b.banned - a.banned)
    .slice(0, 100)
    .map((pattern) => pattern.name)
    .sort();
  if (bans.pattern !== '' && !names.includes(bans.pattern)) names.push(bans.pattern);
  if (
    [...select.options]
      .slice(1)
      .map((option) => option.value)
      .join('\n') !== names.join('\n')
  ) {
    select.replaceChildren(
      el('option', { value: '' }, 'all'),
      ...names.map((name) => el('option', { value: name }, name)),
    );
  }
  select.value = bans.pattern;
}

$('ban').addEventListener('submit', async (event) => {
  event.preventDefault();
  say($('ban-said'), '');
  const order = { ip_address: $('ban-address').value.trim() };
  const duration = $('ban-duration').value.trim();
  const reason = $('ban-reason').value.trim();
  if ($('ban-permanent').checked) order.permanent = true;
  else if (duration !== '') order.duration = duration;
  if (reason !== '') order.reason = reason;
  if (
    isNetwork(order.ip_address) &&
    !(await confirmed(
      `Ban ${order.ip_address}?`,
      `This network holds ${holds(order.ip_address)}. None of them may come in any more.`,
      `Ban ${order.ip_address}`,
    ))
  )
    return;
  if (isNetwork(order.ip_address)) order.force = true;
  await attempt($('ban-submit'), $('ban-error'), async () => {
    const answer = await ask('POST', 'ban', order);
    const how = order.permanent
      ? ' is on the blacklist'
      : answer.expires_at
        ? ` is banned until ${when(answer.expires_at)}`
        : ' is banned';
    $('ban-said').replaceChildren(addressLink(answer.ip_address ?? order.ip_address), `${how}, on every shard.`);
    $('ban').reset();
    permanentChanged();
    firstPage();
  });
});
function permanentChanged() {
  $('ban-duration').disabled = $('ban-permanent').checked;
}
$('ban-permanent').addEventListener('change', permanentChanged);

$('purge').addEventListener('click', async () => {
  const all = known.samples.at(-1)?.banned ?? known.status?.banned;
  const those = all === undefined ? 'All temporary bans end' : `All ${many(all, 'temporary ban')} end`;
  if (
    !(await confirmed(
      'End all bans?',
      `${those}, on every node that shares them. The blacklist stays. This cannot be undone.`,
      'End all bans',
    ))
  )
    return;
  say($('bans-said'), '');
  await attempt($('purge'), $('bans-error'), async () => {
    const answer = await ask('POST', 'purge-bans');
    say($('bans-said'), `${many(answer.purged_count, 'ban')} ended.`);
    await firstPage();
  });
});

// -------------------------------------------------------------------------------------------------------- lists

const lists = ['whitelist', 'blacklist'].map((name) => makeList(name));

function makeList(name) {
  const white = name === 'whitelist';
  const id = (part) => `${name}-${part}`;
  const address = el('input', {
    id: id('address'),
    type: 'text',
    autocomplete: 'off',
    autocapitalize: 'off',
    spellcheck: 'false',
    maxlength: 64,
    required: true,
    placeholder: white ? '192.0.2.0/24' : '203.0.113.7',
  });
  const reason = el('input', { id: id('reason'), type: 'text', autocomplete: 'off', maxlength: 200 });
  const add = el('button', { type: 'submit', id: id('add'), class: 'strong' }, 'Add');
  const said = el('p', { class: 'said', role: 'status', id: id('said') });
  const error = el('p', { class: 'error', role: 'alert', id: id('error') });
  const total = el('span', { class: 'count' });
  const search = el('input', {
    id: id('search'),
    type: 'search',
    autocomplete: 'off',
    spellcheck: 'false',
    maxlength: 64,
    placeholder: 'address, reason or author',
  });
  const form = el(
    'form',
    { class: 'fields order', id: id('form'), 'aria-label': `Add to the ${name}` },
    el('div', { class: 'field wide' }, el('label', { for: id('address') }, 'Address or network'), address),
    el('div', { class: 'field wide' }, el('label', { for: id('reason') }, 'Reason'), reason),
    el('div', { class: 'field do' }, add),
  );
  const head = ['Address', 'Reason', 'Since', 'By'].map((text) =>
    el('th', { role: 'columnheader', scope: 'col' }, text),
  );
  head.push(el('th', { role: 'columnheader', scope: 'col' }, el('span', { class: 'unseen' }, 'Actions')));
  const body = el('tbody', { role: 'rowgroup' });
  const table = el(
    'table',
    { role: 'table', class: 'cards', id: id('entries'), 'aria-label': `Entries of the ${name}` },
    el('thead', { role: 'rowgroup' }, row({}, head)),
    body,
  );
  const empty = el('p', { class: 'hint empty', hidden: true }, 'There is no entry.');
  const back = el('button', { type: 'button', disabled: true }, 'Back');
  const next = el('button', { type: 'button', disabled: true }, 'Next');
  const page = el('p', { role: 'status' });
  const pages = el('div', { class: 'pages', hidden: true }, back, page, next);
  $('lists').append(
    el(
      'section',
      { class: 'card', 'aria-labelledby': id('title') },
      el(
        'div',
        { class: 'card-head' },
        el('h2', { id: id('title') }, white ? 'Whitelist ' : 'Blacklist ', total),
        el(
          'p',
          { class: 'hint' },
          white ? 'Never counted, never denied; beats everything else' : 'Denied for good, unless whitelisted',
        ),
      ),
      form,
      said,
      error,
      el(
        'form',
        { class: 'fields', role: 'search' },
        el('div', { class: 'field' }, el('label', { for: id('search') }, 'Search'), search),
      ),
      table,
      empty,
      pages,
    ),
  );

  const list = { name, search: '', cursors: [], cursor: null, next: null, asked: 0, changed: false, loadedAt: 0 };
  searchBox(search, (text) => {
    list.search = text;
    list.cursors = [];
    list.cursor = null;
    list.load();
  });

  list.load = async () => {
    list.asked += 1;
    const mine = list.asked;
    list.changed = false;
    list.loadedAt = performance.now();
    let answer;
    try {
      answer = await ask('GET', `${name}${query({ limit: PAGE, cursor: list.cursor, search: list.search })}`);
    } catch (why) {
      if (!(why instanceof Fault)) throw why;
      if (mine === list.asked) say(error, `The list could not be read. ${why.message}`);
      return;
    }
    if (mine !== list.asked) return;
    const entries = answer[name];
    list.next = answer.next_cursor ?? null;
    body.replaceChildren(...entries.map(entryRow));
    table.hidden = entries.length === 0;
    empty.hidden = entries.length > 0;
    say(empty, list.search === '' ? 'There is no entry.' : 'No entry matches.');
    say(total, count(answer.total ?? answer.count));
    back.disabled = list.cursors.length === 0;
    next.disabled = list.next === null;
    pages.hidden = back.disabled && next.disabled;
    const first = list.cursors.length * PAGE + 1;
    say(page, entries.length === 0 ? '' : `${count(first)}–${count(first + entries.length - 1)}`);
  };
  list.tick = (now) => {
    if (
      list.changed &&
      now - list.loadedAt >= 1000 &&
      now > quietUntil &&
      !body.matches(':hover, :focus-within') &&
      !$('ask').open
    )
      list.load();
  };

  function entryRow(entry) {
    const actions = el('td', { role: 'cell', class: 'actions' });
    const line = row(
      { 'data-client': entry.ip_address, class: entry.enabled === false ? 'gone' : null },
      cell('', addressLink(entry.ip_address), 'address'),
      cell(
        'Reason',
        `${entry.reason ?? ''}${entry.enabled === false ? ' (switched off)' : entry.source === 'local' ? ' (this node)' : ''}`,
        'all',
      ),
      cell('Since', entry.created_at ? timeOf(entry.created_at) : '', 'all'),
      cell('By', entry.created_by ?? '', 'all name'),
      actions,
    );
    if (entry.source === 'file') {
      actions.append(el('span', { class: 'hint' }, 'in the file'));
      return line;
    }
    const fault = el('p', { class: 'error', role: 'alert' });
    const remove = button(
      'Remove',
      async () => {
        const what = entry.ip_address;
        if (
          isNetwork(what) &&
          !(await confirmed(
            `Remove ${what}?`,
            `This network holds ${holds(what)}. ${white ? 'They can be banned again.' : 'They may come in again.'}`,
            `Remove ${what}`,
          ))
        )
          return;
        await attempt(remove, fault, async () => {
          await ask('DELETE', name, { ip_address: what });
          rowGone(line, actions, 'removed');
          announce(`${what} is not on the ${name} any more.`);
        });
      },
      'quiet remove',
      `Remove ${entry.ip_address} from the ${name}`,
    );
    actions.append(remove, fault);
    return line;
  }

  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    say(said, '');
    const what = address.value.trim();
    if (
      isNetwork(what) &&
      !(await confirmed(
        `Add ${what} to the ${name}?`,
        `This network holds ${holds(what)}. ${white ? 'None of them will be denied, whatever they do.' : 'None of them may come in any more.'}`,
        `Add ${what}`,
      ))
    )
      return;
    await attempt(add, error, async () => {
      const entry = { ip_address: what };
      // Whoever adds a network was asked whether that is meant.
      if (isNetwork(what)) entry.force = true;
      if (reason.value.trim() !== '') entry.reason = reason.value.trim();
      await ask('POST', name, entry);
      say(said, `${what} is on the ${name}, and in force.`);
      form.reset();
      list.cursors = [];
      list.cursor = null;
      await list.load();
    });
  });
  next.addEventListener('click', () => {
    list.cursors.push(list.cursor);
    list.cursor = list.next;
    list.load();
  });
  back.addEventListener('click', () => {
    list.cursor = list.cursors.pop() ?? null;
    list.load();
  });
  return list;
}

function listChanged(name) {
  for (const list of lists) if (list.name === name) list.changed = true;
}

function listsTick(now) {
  if (current.view === 'lists' && known.connected) for (const list of lists) list.tick(now);
}

// -------------------------------------------------------------------------------------------------------- audit

const audit = { before: null, asked: 0, search: '' };
const KEEPERS = { database: 'The changes of all nodes, from the shared database', local: 'The changes of this node' };

async function loadAudit(older) {
  audit.asked += 1;
  const mine = audit.asked;
  say($('audit-error'), '');
  let answer;
  try {
    answer = await ask(
      'GET',
      `audit${query({ limit: PAGE, before: older ? audit.before : null, search: audit.search })}`,
    );
  } catch (why) {
    if (!(why instanceof Fault)) throw why;
    if (mine === audit.asked) say($('audit-error'), `The changes could not be read. ${why.message}`);
    return;
  }
  if (mine !== audit.asked) return;
  audit.before = answer.next_before ?? null;
  const lines = answer.audit.map((change) =>
    row(
      {},
      cell('When', timeOf(change.at), 'all'),
      cell('Who', `${change.who}${change.peer ? ` from ${change.peer}` : ''}`, 'all'),
      cell('Did', String(change.action).replaceAll('_', ' '), 'all'),
      cell(
        'To',
        looksLikeAddress(String(change.target ?? '')) ? addressLink(change.target) : String(change.target ?? ''),
        'all',
      ),
      cell('Detail', String(change.detail ?? ''), 'all'),
      cell(
        'Outcome',
        el(
          'span',
          { class: /^(ok|done|success)/i.test(change.outcome) ? 'pill good' : 'pill warn' },
          String(change.outcome ?? ''),
        ),
        'all',
      ),
      cell('Node', String(change.node ?? ''), 'all'),
    ),
  );
  const body = $('audit').tBodies[0];
  if (older) body.append(...lines);
  else body.replaceChildren(...lines);
  $('audit').hidden = body.rows.length === 0;
  $('audit-empty').hidden = body.rows.length > 0;
  say($('audit-empty'), audit.search === '' ? 'No change has been made yet.' : 'No change matches.');
  $('audit-more').hidden = audit.before === null;
  say($('audit-source'), KEEPERS[answer.source] ?? '');
}
$('audit-more').addEventListener('click', () => attempt($('audit-more'), $('audit-error'), () => loadAudit(true)));
searchBox($('audit-search'), (text) => {
  audit.search = text;
  loadAudit(false);
});
$('audit-again').addEventListener('click', () => attempt($('audit-again'), $('audit-error'), () => loadAudit(false)));

// ------------------------------------------------------------------------------------------------ explain an address

const explained = { address: '', asked: 0, changed: false, loadedAt: 0, clients: new Set() };

$('look').addEventListener('submit', (event) => {
  event.preventDefault();
  const wanted = `#explain=${encodeURIComponent($('look-address').value.trim().split('/')[0])}`;
  if (location.hash === wanted) loadExplanation();
  else location.hash = wanted;
});

const asEntry = (entry) => (typeof entry === 'string' ? { ip_address: entry } : entry);

async function loadExplanation() {
  explained.asked += 1;
  const mine = explained.asked;
  const { address } = explained;
  explained.changed = false;
  explained.loadedAt = performance.now();
  say($('explain-title'), address || 'Explain an address');
  let about;
  try {
    about = await ask('GET', `explain${query({ ip: address })}`);
  } catch (why) {
    if (!(why instanceof Fault)) throw why;
    if (mine !== explained.asked) return;
    say($('explain-error'), why.message);
    $('explain').replaceChildren();
    return;
  }
  if (mine !== explained.asked) return;
  say($('explain-error'), '');
  explained.clients = new Set([address, about.client, ...about.bans.map((ban) => ban.ip_address)]);
  drawExplanation(about);
}

function drawExplanation(about) {
  const whitelist = (about.whitelist ?? []).map(asEntry);
  const blacklist = (about.blacklist ?? []).map(asEntry);
  const error = $('explain-error');
  const done = (text) => {
    say($('explain-said'), text);
    $('explain-title').focus();
    return loadExplanation();
  };
  const [ban] = about.bans;
  const denied = about.verdict === 'banned' || about.verdict === 'blacklisted';
  const [title, why] = {
    banned: () => [
      'Denied: banned for a time',
      ban === undefined
        ? ''
        : [
            ban.pattern === 'manual'
              ? 'Banned by an operator'
              : `Banned by the pattern ${ban.pattern} after ${many(ban.failures, 'failure')}`,
            `, offence ${count(ban.offences)}, severity ${count(ban.severity)}, until ${when(ban.expires_at)}: `,
            countdown(ban.duration_remaining_seconds),
            ' left.',
          ],
    ],
    blacklisted: () => ['Denied: on the blacklist', entryWords(blacklist[0])],
    whitelisted: () => ['Allowed: on the whitelist', entryWords(whitelist[0])],
    allowed: () => [
      'Allowed',
      about.failures > 0
        ? 'Not banned, but there are failures that count.'
        : 'Not banned, on no list, and no failure counts.',
    ],
  }[about.verdict]?.() ?? [String(about.verdict), ''];

  const orders = [];
  for (const each of about.bans) {
    const control = button(
      `Unban ${each.ip_address}`,
      () => unban(each.ip_address, control, error, () => done(`${each.ip_address} is not banned any more.`)),
      'unban',
    );
    orders.push(control);
  }
  for (const entry of blacklist) orders.push(removeButton('blacklist', entry, error, done));
  for (const entry of whitelist) orders.push(removeButton('whitelist', entry, error, done));
  if (whitelist.length === 0) {
    const control = button(
      'Add to the whitelist',
      () =>
        attempt(control, error, async () => {
          await ask('POST', 'whitelist', { ip_address: about.ip_address, reason: 'from the dashboard' });
          await done(`${about.ip_address} is on the whitelist, and in force.`);
        }),
      'whitelist-it',
    );
    orders.push(control);
  }
  if (!denied && whitelist.length === 0) {
    orders.push(
      button(
        'Ban …',
        () => {
          $('ban-address').value = about.ip_address;
          focusOn = $('ban-duration');
          location.hash = '#bans';
        },
        '',
      ),
    );
  }

  const parts = [
    el(
      'section',
      { class: `card verdict ${denied ? 'bad' : 'good'}`, id: 'verdict', 'data-verdict': about.verdict },
      el('div', {}, el('h2', {}, title), el('p', { class: 'why' }, why)),
      el('div', { class: 'orders' }, orders),
    ),
    el(
      'section',
      { class: 'card' },
      el('h2', {}, 'What is counted'),
      el(
        'dl',
        { class: 'facts' },
        el('dt', {}, 'Counted as'),
        el('dd', {}, el('span', { class: 'address' }, String(about.client))),
        el('dt', {}, 'Failures now'),
        el(
          'dd',
          { id: 'failures' },
          el('div', { class: 'meter' }, `${count(about.failures)} of ${count(about.threshold)}`, failuresBar(about)),
        ),
        el('dt', {}, 'Offences'),
        el(
          'dd',
          {},
          about.offences === 0
            ? 'none is remembered'
            : [
                `${count(about.offences)} remembered`,
                about.last_offence ? [', the last at ', timeOf(about.last_offence)] : null,
              ],
        ),
        el('dt', {}, 'Whitelist'),
        el(
          'dd',
          {},
          whitelist.length === 0 ? 'no entry holds it' : whitelist.map((entry) => el('p', {}, entryWords(entry))),
        ),
        el('dt', {}, 'Blacklist'),
        el(
          'dd',
          {},
          blacklist.length === 0 ? 'no entry holds it' : blacklist.map((entry) => el('p', {}, entryWords(entry))),
        ),
        el('dt', {}, 'Said by'),
        el('dd', {}, `${about.node}, policy ${count(about.policy)}`),
      ),
    ),
    about.bans.length > 1
      ? el('section', { class: 'card' }, el('h2', {}, 'Bans that hold it'), bansTable(about.bans))
      : null,
    el(
      'section',
      { class: 'card' },
      el('h2', {}, 'Evidence'),
      (about.evidence ?? []).length === 0
        ? el(
            'p',
            { class: 'hint' },
            'No line is kept. Lines are kept in memory by the node that counted them, for a while.',
          )
        : el(
            'ol',
            { class: 'evidence', id: 'evidence' },
            about.evidence.map((line) =>
              el(
                'li',
                {},
                el('p', { class: 'hint' }, timeOf(line.at), ` ${line.pattern}`),
                el('p', { class: 'line', dir: 'auto' }, `${line.program ? `${line.program}: ` : ''}${line.line}`),
              ),
            ),
          ),
    ),
    el(
      'section',
      { class: 'card' },
      el('h2', {}, 'History'),
      (about.history ?? []).length === 0
        ? el('p', { class: 'hint' }, 'No earlier ban is kept.')
        : historyTable(about.history),
    ),
  ];
  $('explain').replaceChildren(...parts.filter((part) => part !== null));
}

function removeButton(name, entry, error, done) {
  const what = entry.ip_address;
  const control = button(
    `Remove ${what} from the ${name}`,
    async () => {
      if (
        isNetwork(what) &&
        !(await confirmed(`Remove ${what} from the ${name}?`, `This network holds ${holds(what)}.`, `Remove ${what}`))
      )
        return;
      await attempt(control, error, async () => {
        await ask('DELETE', name, { ip_address: what });
        await done(`${what} is not on the ${name} any more.`);
      });
    },
    'remove',
  );
  return control;
}

const ENTRY_KEPT = { file: ', in the file', local: ', on this node' };

function entryWords(entry) {
  if (entry === undefined) return '';
  const by = entry.created_by ? `, by ${entry.created_by}` : '';
  const since = entry.created_at ? `, since ${when(entry.created_at)}` : '';
  return `${entry.ip_address}${entry.reason ? `: ${entry.reason}` : ''}${by}${since}${ENTRY_KEPT[entry.source] ?? ''}`;
}

function failuresBar({ failures, threshold }) {
  const share = threshold > 0 ? Math.min(1, failures / threshold) : 0;
  return svg(
    'svg',
    { viewBox: '0 0 100 8', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    svg('rect', { class: 'well', width: 100, height: 8, rx: 2 }),
    svg('rect', { class: share >= 0.8 ? 'part full' : 'part', width: share * 100, height: 8, rx: 2 }),
  );
}

function plainTable(label, heads, lines) {
  return el(
    'table',
    { role: 'table', class: 'cards', 'aria-label': label },
    el(
      'thead',
      { role: 'rowgroup' },
      row(
        {},
        heads.map((text) => el('th', { role: 'columnheader', scope: 'col' }, text)),
      ),
    ),
    el('tbody', { role: 'rowgroup' }, lines),
  );
}

const bansTable = (list) =>
  plainTable(
    'Bans that hold it',
    ['Network', 'Pattern', 'Failures', 'Offences', 'Since', 'Ends in'],
    list.map((ban) =>
      row(
        {},
        cell('', el('span', { class: 'address' }, ban.ip_address), 'address'),
        cell('Pattern', ban.pattern),
        cell('Failures', count(ban.failures)),
        cell('Offences', count(ban.offences)),
        cell('Since', timeOf(ban.banned_at), 'all'),
        cell('Ends in', countdown(ban.duration_remaining_seconds), 'all'),
      ),
    ),
  );

const historyTable = (list) =>
  plainTable(
    'Earlier bans',
    ['Since', 'Until', 'Pattern', 'Failures', 'Offence', 'By', 'Lifted'],
    list.map((ban) =>
      row(
        {},
        cell('Since', timeOf(ban.banned_at), 'all'),
        cell('Until', timeOf(ban.expires_at), 'all'),
        cell('Pattern', `${ban.pattern}${ban.reason ? `: ${ban.reason}` : ''}`, 'all'),
        cell('Failures', count(ban.failures)),
        cell('Offence', count(ban.offences)),
        cell('By', [ban.created_by, ban.node].filter(Boolean).join(', '), 'all'),
        cell(
          'Lifted',
          ban.lifted_at ? el('span', {}, timeOf(ban.lifted_at), ban.lifted_reason ? ` ${ban.lifted_reason}` : '') : '',
          'all',
        ),
      ),
    ),
  );

function explainChanged(client) {
  if (client === undefined || explained.clients.has(client)) explained.changed = true;
}

function explainTick(now) {
  if (current.view !== 'explain' || !known.connected || !explained.changed || $('ask').open) return;
  if (now - explained.loadedAt >= LIST_EVERY && now > quietUntil && !$('explain').matches(':focus-within'))
    loadExplanation();
}

// ------------------------------------------------------------------------------------------------ which view is shown

const VIEWS = ['now', 'bans', 'lists', 'audit', 'explain'];
const TITLES = { now: '', bans: 'Bans', lists: 'Lists', audit: 'Audit' };
let current = { view: 'now', about: '' };
let focusOn = null;

const viewTitle = () => {
  const title = current.view === 'explain' ? current.about : TITLES[current.view];
  return title === '' ? '' : `${title} – `;
};

function fromAddressBar() {
  const [view, about = ''] = location.hash.slice(1).split('=');
  let text = '';
  try {
    text = decodeURIComponent(about);
  } catch {
    // Somebody typed it.
  }
  return VIEWS.includes(view) ? { view, about: text } : { view: 'now', about: '' };
}

/** Shows a view and loads what it needs. */
function show(wanted, again = false) {
  current = wanted;
  for (const view of VIEWS) $(`view-${view}`).hidden = view !== wanted.view;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.dataset.view === wanted.view) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (wanted.view === 'now') draw(drawCharts);
  if (wanted.view === 'bans') {
    if (!again) {
      say($('bans-said'), '');
      bans.pattern = wanted.about;
      drawPatternChoice();
    }
    if (!again || !bansInUse()) firstPage();
    else bans.changed = true;
  }
  if (wanted.view === 'lists') for (const list of lists) list.load();
  if (wanted.view === 'audit' && !again) loadAudit(false);
  if (wanted.view === 'explain') {
    if (!again) {
      say($('explain-said'), '');
      say($('explain-error'), '');
      $('explain').replaceChildren();
    }
    explained.address = wanted.about;
    $('look-address').value = wanted.about;
    loadExplanation();
  }
  draw(drawHealth);
}

window.addEventListener('hashchange', () => {
  if (location.hash === '#main') return;
  show(fromAddressBar());
  window.scrollTo(0, 0);
  (focusOn ?? document.querySelector('.view:not([hidden]) h1')).focus();
  focusOn = null;
});

say($('zone'), `Times are this browser's: ${Intl.DateTimeFormat().resolvedOptions().timeZone}.`);
if (window.matchMedia('(max-width: 52rem)').matches) $('ban-box').open = false;
current = fromAddressBar();
show(current);
open();
setInterval(tick, 1000);
