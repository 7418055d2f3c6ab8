-- finish: release a flight's lease and hand its outcome to those who joined it.
-- KEYS  lease, attempts, result of the flight (that name ends with the flight), and, if MaxAge keeps the outcome, latest
-- ARGV  outcome, the earliest that the function ended by this server's clock (µs), how long ago it ended (µs),
--       four words: hand-off TTL (ms), PUBLISH or SPUBLISH, what stands in the channel's name after the key, for how long
--       an outcome that cannot be shared is remembered (ms);
--       and, unless they are empty: 'ask' to learn whether anybody wants the outcome, which is not there, why the outcome
--       cannot be shared, for how long MaxAge keeps it (ms), and then the flight's trace
-- reply 1 it had its lease, or its key was forgotten · 3 the same, and somebody had joined it ·
--       0 Redis had nothing of it · -1 it had lost its lease ·
--       2 to one that asks: somebody wants the outcome, and nothing was changed
-- The outcome may be a notice: then its payload is stored already, and no script copies that. Its bytes 25 to 32 say
-- when the function ended.
-- A flight of which Redis has nothing cannot know whether anybody joined it, so it publishes.
-- Why the outcome cannot be shared stands in the lease's place: who comes next runs its own
-- function at once, and does not wait for another outcome that cannot be shared either.
-- Most flights end that nobody has joined, and theirs is the only attempt: one command lets both go.
local redis, string = redis, string
local call, flight = redis.call, string.sub(KEYS[3], -22)
local unshared = ARGV[6] or ''
local lease = redis.pcall('GET', KEYS[1])
local held = type(lease) == 'string' and string.sub(lease, 2, 23) == flight
local keep = held and KEYS[4]
local joined = true
local attempt, forgotten, lost
if held then
  joined = string.sub(lease, 1, 1) == '1'
else
  attempt = redis.pcall('HGET', KEYS[2], flight)
  if type(attempt) == 'string' then
    forgotten, lost = string.match(attempt, '^%d+ (%d)%d%d%d%d(l?)$')
    joined = forgotten ~= '0'
  end
end
if ARGV[5] == 'ask' and (joined or keep) then
  return 2
end

local vacant = held
local reply = 1
if held then
  local attempts = redis.pcall('HGETALL', KEYS[2])
  if #attempts == 2 and attempts[1] == flight then
    call('DEL', KEYS[1], KEYS[2])
  else
    -- The key kills no leader. A flight that is not due yet lives without its lease, and may
    -- take it again.
    call('DEL', KEYS[1])
    local time = call('TIME')
    for i = 1, #attempts, 2 do
      if attempts[i] == flight or (tonumber((string.match(attempts[i + 1], '^%d+'))) or 0) <= time[1] * 1000 + time[2] / 1000 then
        call('HDEL', KEYS[2], attempts[i])
      end
    end
  end
else
  -- The other attempts are those of who has led since, or of leaders that have died.
  if type(attempt) == 'string' then
    call('HDEL', KEYS[2], flight)
    vacant = not forgotten and not lease
    if lost ~= '' then
      reply = -1
    end
  else
    reply = 0
  end
  -- An earlier try, which was to share the outcome, may have got through.
  if unshared ~= '' and type(redis.pcall('GET', KEYS[3])) == 'string' then
    joined = false
  end
end
if unshared ~= '' and vacant then
  call('SET', KEYS[1], '!' .. unshared, 'PX', string.match(ARGV[4], '%d+$'))
end

local finished, outcome = ARGV[2], ARGV[1]
if keep or joined then
  -- The leader knows what this server's clock showed then, unless that was set back since.
  local time = call('TIME')
  local most = math.max(time[1] * 1000000 + time[2] - ARGV[3], 0)
  if most < tonumber(finished) then
    finished = string.format('%.0f', most)
    outcome = string.sub(outcome, 1, 24) .. struct.pack('>I8', most) .. string.sub(outcome, 33)
  end
end
if keep then
  call('DEL', KEYS[4])
  call('HSET', KEYS[4], 'finished', finished, 'outcome', outcome, 'trace', ARGV[8])
  call('PEXPIRE', KEYS[4], ARGV[7])
end
if joined then
  local handoff, publish, database = string.match(ARGV[4], '^(%d+) (%u+) (%S+)')
  call('SET', KEYS[3], outcome, 'PX', handoff)
  call(publish, string.sub(KEYS[1], 1, -7) .. database, outcome) -- the lease's name ends with :lease
  if reply == 1 then
    reply = 3
  end
end
return reply
