-- finish: release a flight's lease and hand its outcome to those who joined it.
-- KEYS  lease, attempts, result of the flight, latest
-- ARGV  flight, outcome, channel, PUBLISH or SPUBLISH,
--       hand-off TTL (ms), MaxAge (ms; 0 when the outcome must not be kept),
--       the earliest that the function ended by this server's clock (µs), trace of the flight, or '',
--       '' when the outcome can be shared, else why not, and for how long that is to be remembered (ms),
--       'ask' to learn whether anybody wants the outcome, which is not there, '' to hand it over,
--       how long ago the function ended (µs)
-- reply 1 it had its lease, or its key was forgotten · 0 Redis had nothing of it · -1 it had lost its lease ·
--       2 to one that asks: somebody wants the outcome, and nothing was changed
-- The outcome may be a notice: then its payload is stored already, and no script copies that. Its bytes 25 to 32 say
-- when the function ended.
-- A flight of which Redis has nothing cannot know whether anybody joined it, so it publishes.
-- Why the outcome cannot be shared stands in the lease's place: who comes next runs its own
-- function at once, and does not wait for another outcome that cannot be shared either.
local lease = redis.pcall('GET', KEYS[1])
local held = type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1]
local keep = held and tonumber(ARGV[6]) > 0
local joined = true
local attempt, forgotten, lost
if held then
  joined = string.sub(lease, 1, 1) == '1'
else
  attempt = redis.pcall('HGET', KEYS[2], ARGV[1])
  if type(attempt) == 'string' then
    forgotten, lost = string.match(attempt, '^%d+ (%d)%d%d%d%d(l?)$')
    joined = forgotten ~= '0'
  end
end
if ARGV[11] == 'ask' and (joined or keep) then
  return 2
end

local vacant = held
local reply = 1
if held then
  redis.call('DEL', KEYS[1])
  redis.pcall('HDEL', KEYS[2], ARGV[1])
  -- The key kills no leader. A flight that is not due yet lives without its lease, and may
  -- take it again.
  local others = redis.pcall('HGETALL', KEYS[2])
  if #others > 0 then
    local time = redis.call('TIME')
    for i = 1, #others, 2 do
      if (tonumber((string.match(others[i + 1], '^%d+'))) or 0) <= time[1] * 1000 + time[2] / 1000 then
        redis.call('HDEL', KEYS[2], others[i])
      end
    end
  end
else
  -- The other attempts are those of who has led since, or of leaders that have died.
  if type(attempt) == 'string' then
    redis.call('HDEL', KEYS[2], ARGV[1])
    vacant = not forgotten and not lease
    if lost ~= '' then
      reply = -1
    end
  else
    reply = 0
  end
  -- An earlier try, which was to share the outcome, may have got through.
  if ARGV[9] ~= '' and type(redis.pcall('GET', KEYS[3])) == 'string' then
    joined = false
  end
end
if ARGV[9] ~= '' and vacant then
  redis.call('SET', KEYS[1], '!' .. ARGV[9], 'PX', ARGV[10])
end

local finished, outcome = ARGV[7], ARGV[2]
if keep or joined then
  -- The leader knows what this server's clock showed then, unless that was set back since.
  local time = redis.call('TIME')
  local most = math.max(time[1] * 1000000 + time[2] - ARGV[12], 0)
  if most < tonumber(finished) then
    finished = string.format('%.0f', most)
    outcome = string.sub(outcome, 1, 24) .. struct.pack('>I8', most) .. string.sub(outcome, 33)
  end
end
if keep then
  redis.call('DEL', KEYS[4])
  redis.call('HSET', KEYS[4], 'finished', finished, 'outcome', outcome, 'trace', ARGV[8])
  redis.call('PEXPIRE', KEYS[4], ARGV[6])
end
if joined then
  redis.call('SET', KEYS[3], outcome, 'PX', ARGV[5])
  redis.call(ARGV[4], ARGV[3], outcome)
end
return reply
