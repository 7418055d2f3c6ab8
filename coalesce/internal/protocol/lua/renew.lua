-- renew: extend a flight's lease, or take it again if Redis lost it.
-- KEYS  lease, attempts, whether the flight is over
-- ARGV  flight, lease TTL (ms), how long a death is counted (ms), what stands in the lease after the count,
--       channel, PUBLISH or SPUBLISH, message that the flight lives
-- reply {word, now (µs), 1 when the key was forgotten, or may have been, while the flight ran; else 0}:
--       'held' it had its lease, or its key was forgotten · 'retaken' nobody had it, now it has ·
--       'lost' it has it no more, but those who joined it see it run · 'over' it was given up
-- Who has joined the flight is told that it lives, and need not look; a byte more at the end says that
-- its key was forgotten. A renewal that Redis runs after the flight's end finds nothing of it, and tells
-- nobody: who has missed the outcome would wait on.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if redis.pcall('GET', KEYS[3]) == '-' then
  return {'over', now, 0}
end
local lease = redis.pcall('GET', KEYS[1])
local attempt = redis.pcall('HGET', KEYS[2], ARGV[1])
local word, forgotten, rest = 'held', 0, ''
local joined = type(attempt) == 'string'
if joined then
  rest = string.match(attempt, '^%d+( %d%d%d%d%dl?)$') or ''
end
if type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1] then
  joined = string.sub(lease, 1, 1) == '1'
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  rest = ''
elseif rest ~= '' then
  forgotten = 1
  joined = string.sub(rest, 2, 2) ~= '0'
  if string.sub(rest, -1) == 'l' then
    word = 'lost'
  end
elseif not joined then
  -- Redis has nothing of the flight: its key may have been forgotten, too.
  word, forgotten, rest = 'lost', 1, ' 19999l'
elseif not lease then
  -- A flight that stands among the attempts has not ended. Who joined it is not known.
  redis.call('SET', KEYS[1], '1' .. ARGV[1] .. '9999' .. ARGV[4], 'PX', ARGV[2])
  word = 'retaken'
else
  word, rest = 'lost', ' l'
end
if type(attempt) == 'table' then
  redis.call('DEL', KEYS[2])
end
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f', now / 1000 + ARGV[2]) .. rest)
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if joined then
  local message = ARGV[7]
  if forgotten == 1 then
    message = message .. '!'
  end
  redis.call(ARGV[6], ARGV[5], message)
end
return {word, now, forgotten}
