-- abandon: give up a flight that has no outcome, so that a follower takes over at once.
-- KEYS  lease, attempts, whether the flight is over
-- ARGV  flight, message to publish, channel, 1 to give it up even when somebody joined it,
--       PUBLISH or SPUBLISH, hand-off TTL (ms)
-- reply 1 given up · 0 somebody waits for it
-- A leader that gives up has not died: its attempt does not count.
local lease = redis.pcall('GET', KEYS[1])
local held = type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1]
local attempt = redis.pcall('HGET', KEYS[2], ARGV[1])
local mark
if held then
  mark = string.sub(lease, 1, 1)
elseif type(attempt) == 'string' then
  -- Of a flight that has lost its lease nobody knows who waits for it: somebody may.
  mark = string.match(attempt, '^%d+ (%d)%d%d%d%d') or '1'
end
if mark == '1' and ARGV[4] ~= '1' then
  return 0
end
-- The mark '-' tells those who peek that the flight is over, and a join or a renewal of it
-- that is yet to come that it is too late.
redis.call('SET', KEYS[3], '-', 'PX', ARGV[6])
if held then
  redis.call('DEL', KEYS[1])
end
redis.pcall('HDEL', KEYS[2], ARGV[1])
if mark ~= '0' then
  redis.call(ARGV[5], ARGV[3], ARGV[2])
end
return 1
