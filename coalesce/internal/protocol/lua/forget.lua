-- forget: make sure that no caller joins the key's present flight or takes its last outcome.
-- KEYS  lease, latest, attempts
-- ARGV  the Fleet that forgets, what stands before and after a Fleet's id in the name of its control channel, notice,
--       the key's channel, message, PUBLISH or SPUBLISH, how long the attempts are kept (ms)
-- reply 1 · what MaxAge had kept, if that is a notice: then its payload is stored, and whoever asks lets it go
-- Whoever waits for a flight that runs still sees it among the attempts, which say there that it was forgotten.
-- Its leader hears of it on its Fleet's control channel, the others on the key's. The Fleet that forgets knows.
local lease = redis.pcall('GET', KEYS[1])
local ttl = redis.call('PTTL', KEYS[1])
local attempts = redis.pcall('HGETALL', KEYS[3])
local kept = redis.pcall('HGET', KEYS[2], 'outcome')
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
local lasts
if type(lease) == 'string' then
  lasts = tonumber((string.match(lease, '^%d%d%d%d %d+ %d+ (%d+) %S', 24)))
end
if lasts or #attempts > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local told = {[ARGV[1]] = true}
  local function tell(flight)
    local fleet = string.sub(flight, 1, 8)
    if not told[fleet] then
      told[fleet] = true
      redis.call('PUBLISH', ARGV[2] .. fleet .. ARGV[3], ARGV[4])
    end
  end
  for i = 1, #attempts, 2 do
    local due, joined = string.match(attempts[i + 1], '^(%d+)(.*)$')
    -- One that is not due runs, though Redis may have lost its lease.
    if due and tonumber(due) > now then
      if not string.find(joined, '^ %d') then
        joined = ' 19999l'
      end
      redis.call('HSET', KEYS[3], attempts[i], due .. joined)
    end
    tell(attempts[i]) -- a leader that was held up may go on
  end
  if lasts then
    -- No lease lives for longer than its leader asked for, even if the server's clock was set back.
    if ttl < 1 or ttl > lasts then
      ttl = lasts
    end
    local holder = string.sub(lease, 2, 23)
    redis.call('HSET', KEYS[3], holder, string.format('%.0f ', now + ttl) .. string.sub(lease, 1, 1) .. string.sub(lease, 24, 27))
    tell(holder)
  end
  redis.call('PEXPIRE', KEYS[3], ARGV[8])
end
redis.call(ARGV[7], ARGV[5], ARGV[6])
-- The second byte of an outcome is its kind, and 6 is a notice.
if type(kept) == 'string' and string.byte(kept, 2) == 6 then
  return kept
end
return 1
