-- abandon: give up a flight that has no outcome, so that a follower takes over at once.
-- KEYS  lease, attempts, detached lease of the flight
-- ARGV  flight, message to publish, channel, 1 to give it up even when somebody joined it,
--       PUBLISH or SPUBLISH, hand-off TTL (ms)
-- reply 1 given up · 0 somebody waits for it
-- A leader that gives up has not died: its attempt does not count.
local lease = redis.pcall('GET', KEYS[1])
local held = type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1]
local detached = redis.pcall('GET', KEYS[3])
-- A flight whose id stands neither in the lease nor in a detached one has lost its lease.
-- The followers that wait for it will see that when they peek, and the message tells them
-- sooner. It may also be that its join is yet to come: the mark '-' tells the join that it
-- is too late.
local lost = not held and (type(detached) ~= 'string' or detached == '-')
local joined = held and string.sub(lease, 1, 1) == '1' or detached == '1'
if joined and ARGV[4] ~= '1' then
  return 0
end
if lost then
  redis.call('SET', KEYS[3], '-', 'PX', ARGV[6])
else
  redis.call('DEL', KEYS[3])
end
if held then
  redis.call('DEL', KEYS[1])
  local attempts = redis.pcall('DECR', KEYS[2])
  if type(attempts) == 'table' or attempts <= 0 then
    redis.call('DEL', KEYS[2])
  end
end
if joined or lost then
  redis.call(ARGV[5], ARGV[3], ARGV[2])
end
return 1
