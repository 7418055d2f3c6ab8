-- finish: release a flight's lease and hand its outcome to those who joined it.
-- KEYS  lease, attempts, result of the flight, latest, detached lease of the flight
-- ARGV  flight, outcome, notice that it is stored, channel, PUBLISH or SPUBLISH,
--       'inline' to publish the outcome, 'notice' for the notice, 'again' for
--       the notice when this is not the first try,
--       hand-off TTL (ms), MaxAge (ms; 0 when the outcome must not be kept),
--       the earliest that the function ended by this server's clock (µs),
--       how long before it was sent the function ended (µs), how long a command
--       may be on its way (µs), 1 when the function outlived its lease,
--       trace of the flight, or ''
-- reply 1 it had its lease · 0 it had released it before, or the key was forgotten · -1 it had lost it
-- A flight that has lost its lease cannot know whether anybody joined it, so it publishes.

-- When a command was held up, or is repeated, its function may have ended before some
-- followers joined. They must learn the outcome's age, so they get a notice, and fetch the
-- outcome. The outcome counts as old as it can be: MaxAge must not keep it for too long.
local time = redis.call('TIME')
local finished = time[1] * 1000000 + time[2] - ARGV[10]
local late = ARGV[6] == 'again' or finished > ARGV[9] + ARGV[11]
if late then
  finished = tonumber(ARGV[9])
end

local lease = redis.pcall('GET', KEYS[1])
local held = type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1]
local joined = true
local reply = 1
if held then
  joined = string.sub(lease, 1, 1) == '1'
  redis.call('DEL', KEYS[1], KEYS[2])
else
  reply = 0
  local detached = redis.pcall('GET', KEYS[5])
  joined = detached ~= '0'
  if detached == '0' or detached == '1' then
    -- Others may have led since the key was forgotten. The mark '-' keeps a repeated
    -- finish from taking that for a loss of the lease.
    redis.call('SET', KEYS[5], '-', 'PX', ARGV[7])
  elseif detached ~= '-' then
    -- It may be that an earlier try released the lease, that its reply was lost, and
    -- that others have led since. In that case they cannot have begun before the
    -- function ended, and the earlier try has removed the attempts.
    local lost = ARGV[12] == '1'
    if lease then
      local start = type(lease) == 'string' and tonumber(string.match(lease, '^[01]%S+ %d+ (%d+)'))
      lost = lost or start and start < tonumber(ARGV[9])
    else
      lost = lost or not late and type(redis.pcall('GET', KEYS[2])) == 'string'
    end
    if lost then
      reply = -1
    end
  end
  -- The attempts may belong to others who have led since: to the present holder of the
  -- lease, or to one that died after an earlier try of this finish.
  if not lease and not late then
    redis.call('DEL', KEYS[2])
  end
end

local keep = held and tonumber(ARGV[8]) > 0
if joined or keep then
  redis.call('HSET', KEYS[3], 'finished', string.format('%.0f', finished), 'earliest', ARGV[9], 'outcome', ARGV[2])
  redis.call('PEXPIRE', KEYS[3], math.max(tonumber(ARGV[7]), tonumber(ARGV[8])))
end
if keep then
  redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[8])
  if ARGV[13] ~= '' then
    redis.call('HSET', KEYS[3], 'trace', ARGV[13])
  end
end
if joined then
  local message = ARGV[3]
  if ARGV[6] == 'inline' and not late then
    message = ARGV[2]
  end
  redis.call(ARGV[5], ARGV[4], message)
end
return reply
