-- renew: extend a flight's lease if it still has it.
-- KEYS  lease, detached lease of the flight
-- ARGV  flight, lease TTL (ms)
-- reply 1 it had it · 0 it was lost
local lease = redis.pcall('GET', KEYS[1])
if type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
