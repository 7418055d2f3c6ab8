-- renew: extend a flight's lease, or take it again if Redis lost it.
-- KEYS  lease, attempts, detached lease of the flight
-- ARGV  flight, lease TTL (ms), how long a death is counted (ms), what stands in the lease after the count
-- A detached lease is: joined, and how many, as in a lease; then 'l' when the flight had lost its lease.
-- reply {word, now (µs)}: 'held' it had its lease, or a detached one since the key was forgotten · 'retaken' nobody had it, now it has ·
--       'lost' it has a detached one, for those who joined it · 'over' it was given up
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local detached = redis.pcall('GET', KEYS[3])
if detached == '-' then
  return {'over', now}
end
local lease = redis.pcall('GET', KEYS[1])
-- A flight that stands among the attempts has not ended, and was not forgotten.
local word = 'held'
local counted = redis.pcall('HEXISTS', KEYS[2], ARGV[1]) == 1
if type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  counted = true
elseif not lease and counted then
  -- Who joined it is not known.
  redis.call('SET', KEYS[1], '1' .. ARGV[1] .. '9999' .. ARGV[4], 'PX', ARGV[2])
  redis.call('DEL', KEYS[3])
  word = 'retaken'
elseif type(detached) == 'string' and string.sub(detached, -1) ~= 'l' then
  redis.call('PEXPIRE', KEYS[3], ARGV[2])
else
  redis.call('SET', KEYS[3], '19999l', 'PX', ARGV[2])
  word = 'lost'
end
if counted then
  redis.pcall('HSET', KEYS[2], ARGV[1], string.format('%.0f', now / 1000 + ARGV[2]))
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return {word, now}
