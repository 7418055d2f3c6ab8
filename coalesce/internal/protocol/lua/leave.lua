-- leave: a follower waits no longer for a flight that may run.
-- KEYS  lease, detached lease of the flight, detached lease of the follower's own flight
-- ARGV  the flight that it followed, hand-off TTL (ms)
-- reply 1 it is counted no more · 0 it was not counted, has left before, or nobody knows how many wait
-- The follower's own flight will never lead: the mark '-' tells a repeated leave.
if not redis.call('SET', KEYS[3], '-', 'PX', ARGV[2], 'NX') then
  return 0
end
local key, before = KEYS[1], 23
local lease = redis.pcall('GET', key)
if type(lease) ~= 'string' or string.sub(lease, 2, 23) ~= ARGV[1] then
  key, before = KEYS[2], 1
  lease = redis.pcall('GET', key)
end
local count
if type(lease) == 'string' then
  count = tonumber(string.sub(lease, before + 1, before + 4))
end
if not count or count == 0 or count == 9999 then
  return 0
end
redis.call('SETRANGE', key, before, string.format('%04d', count - 1))
if count == 1 then
  redis.call('SETRANGE', key, 0, '0')
end
return 1
