-- many: one step for many callers' keys. The step's script stands in the function below.
-- KEYS  those of the step, for one caller's key after the other
-- ARGV  how many keys a step has, how many arguments, how many of these differ from one
--       caller's key to the next, the places of those that differ, all arguments for the
--       first caller's key, then those that differ, for one caller's key after the other
-- reply a list of the step's replies; an error in it is that caller's key's alone
-- What all have in common is sent once: to read arguments is a good part of the costs. The
-- step keeps neither its keys nor its arguments, so one table of each is enough.
-- Nothing else happens while it runs: one reading of the clock is everybody's.
local time
local function clock()
  time = time or redis.call('TIME')
  return time
end

local function step(KEYS, ARGV)
  --[[step]]
end

local keys_each, args_each, differing = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local places, keys, args, replies = {}, {}, {}, {}
for i = 1, differing do
  places[i] = tonumber(ARGV[3 + i])
end
for i = 1, args_each do
  args[i] = ARGV[3 + differing + i]
end
local key, arg = 0, 3 + differing + args_each
for i = 1, #KEYS / keys_each do
  for j = 1, keys_each do
    keys[j] = KEYS[key + j]
  end
  for j = 1, differing do
    args[places[j]] = ARGV[arg + j]
  end
  key, arg = key + keys_each, arg + differing
  local done, reply = pcall(step, keys, args)
  if not done then
    -- It is a text, which begins with a code if it is one of Redis' own errors. Before 7.0,
    -- that stands after the line of the script, and after a hyphen.
    local own = string.gsub(tostring(reply), '^@user_script.-: *%d+: *%-?', '')
    reply = {err = string.gsub('ERR ' .. own, '^ERR (%u+ )', '%1')}
  end
  replies[i] = reply
end
return replies
