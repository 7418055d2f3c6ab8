-- leave: a follower waits no longer for a flight that may run.
-- KEYS  lease, attempts, whether the follower's own flight is over
-- ARGV  the flight that it followed, hand-off TTL (ms)
-- reply 1 it is counted no more · 0 it was not counted, has left before, or nobody knows how many wait
-- The follower's own flight will never lead: the mark '-' tells a repeated leave.
if not redis.call('SET', KEYS[3], '-', 'PX', ARGV[2], 'NX') then
  return 0
end
local lease = redis.pcall('GET', KEYS[1])
local held = type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1]
local count, due, lost
if held then
  count = string.sub(lease, 24, 27)
else
  local attempt = redis.pcall('HGET', KEYS[2], ARGV[1])
  if type(attempt) == 'string' then
    due, count, lost = string.match(attempt, '^(%d+ )%d(%d%d%d%d)(l?)$')
  end
end
count = tonumber(count)
if not count or count == 0 or count == 9999 then
  return 0
end
local mark = '1'
if count == 1 then
  mark = '0'
end
count = string.format('%04d', count - 1)
if held then
  redis.call('SETRANGE', KEYS[1], 0, mark .. ARGV[1] .. count)
else
  redis.call('HSET', KEYS[2], ARGV[1], due .. mark .. count .. lost)
end
return 1
