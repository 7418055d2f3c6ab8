-- forget: make sure that no caller joins the key's present flight or takes its last outcome.
-- KEYS  lease, latest, attempts
-- ARGV  prefix of detached leases, control channel, notice
-- reply number of replicas that got the notice
-- The flight gets a detached lease, so that those who wait for it still see it run.
-- Its attempt must not count against the next flight.
local lease = redis.pcall('GET', KEYS[1])
local ttl = redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
if type(lease) == 'string' and string.len(lease) > 23 and ttl > 0 then
  redis.call('SET', ARGV[1] .. string.sub(lease, 2, 23), string.sub(lease, 1, 1), 'PX', ttl)
end
return redis.call('PUBLISH', ARGV[2], ARGV[3])
