-- finish: release a flight's lease and hand its outcome to those who joined it.
-- KEYS  lease, attempts, result of the flight, latest, detached lease of the flight
-- ARGV  flight, outcome, notice that it is stored, channel, hand-off TTL (ms),
--       MaxAge (ms; 0 when the outcome must not be kept), when the function
--       ended by this server's clock (µs), PUBLISH or SPUBLISH, up to what age
--       the outcome itself is published, not the notice (µs)
-- reply {1 when the lease was still the flight's, 1 when the outcome was published}
-- A flight that lost its lease cannot know who joined it: it publishes.
local lease = redis.pcall('GET', KEYS[1])
local held = type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1]
local joined = true
if held then
  joined = string.sub(lease, 1, 1) == '1'
  redis.call('DEL', KEYS[1], KEYS[2])
else
  joined = redis.pcall('GET', KEYS[5]) ~= '0'
  redis.call('DEL', KEYS[5])
  if not lease then -- else the attempts are the present holder's
    redis.call('DEL', KEYS[2])
  end
end

local keep = held and tonumber(ARGV[6]) > 0
if joined or keep then
  redis.call('HSET', KEYS[3], 'finished', ARGV[7], 'outcome', ARGV[2])
  redis.call('PEXPIRE', KEYS[3], math.max(tonumber(ARGV[5]), tonumber(ARGV[6])))
end
if keep then
  redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[6])
end
if joined then
  -- An old outcome, of a leader or a command that was held up, may be from
  -- before some who joined: they learn its age as they fetch it.
  local time = redis.call('TIME')
  local age = time[1] * 1000000 + time[2] - ARGV[7]
  redis.call(ARGV[8], ARGV[4], age <= tonumber(ARGV[9]) and ARGV[2] or ARGV[3])
end
return {held and 1 or 0, joined and 1 or 0}
