"""Atomic steps of the Redis store, as Lua scripts. Redis runs one script at a time, so each script is a transaction.

Keys, after the prefix ``P``:

======================  =============  =============================================================
``queue``               stream         events not yet absorbed (consumer group ``workers``)
``unreadable``          stream         events set aside because they could not be read, each with the reason ``why``
``idem:KEY``            string         digest of an accepted batch, with a time to live
``u:USER``              hash           ``seen``, the number of the user's events so far
``h:USER``              sorted set     events by time
``f:RELEASE:USER``      hash           feature row: ``v`` version, ``s`` events seen, ``n`` neighbour; its JSON in two
                                       parts: ``h`` head (its own members), ``t`` tail (the neighbour's items)
``n:RELEASE:USER``      set            users whose row carries this user's items
``due:RELEASE``         sorted set     users by due time
``late:RELEASE``        sorted set     users deferred by the pace limit, by the time of their turn; they become due at
                                       this time, and an idle worker leases them earlier
``pace:RELEASE``        hash           ``known:SOURCE``, ``new:SOURCE`` → time of the latest turn of a known or new user
                                       whose events came from the API key SOURCE; successive turns of a key are a
                                       minimum time apart
``lease:RELEASE``       sorted set     users by lease end
``token:RELEASE``       hash           user → ``token worker``
``try:RELEASE``         hash           user → failures
``dead:RELEASE``        hash           user → reason (JSON)
``releases``            hash           name → release (JSON), live ones
``names``               set            releases that may have rows, including those being published
``erased``              set            keyed digests of the ids of erased users
``meta``                hash           ``active``, ``previous`` and ``undone`` (releases), ``filled:RELEASE``,
                                       ``secret``, ``generation``, ``schema``, ``schema_reader``
``counters``            hash           counter → value
``beats``               hash           process → time of its last sign of life, and its report (JSON)
``clock``               string         high-water mark of the workers' clocks
======================  =============  =============================================================

A user is known if some release has a feature row for the user, and new otherwise.

Every script receives the generation (a random id) of the store that was opened. If the store now has another
generation, for example because it was empty after a crash, the script changes nothing and returns an error. Numbers are
passed as text; a time in microseconds stays exact in Lua's doubles until the year 2255.
"""

from __future__ import annotations

PRELUDE = """
local P = ARGV[1]
if redis.call('HGET', P..'meta', 'generation') ~= KEYS[1] then return redis.error_reply('GENERATION the store has been replaced since it was opened') end
local function number(x) return tonumber(x or '0') or 0 end
local function text(x) return string.format('%.0f', x) end
local function give_back(release, user, reason, now, count, limit, backoff)
  redis.call('ZREM', P..'lease:'..release, user)
  redis.call('HDEL', P..'token:'..release, user)
  local attempts = number(redis.call('HGET', P..'try:'..release, user))
  if count == 1 then attempts = redis.call('HINCRBY', P..'try:'..release, user, 1) end
  if count == 1 and attempts >= limit then
    redis.call('HSET', P..'dead:'..release, user, cjson.encode({reason = reason, attempts = attempts, at = text(now)}))
  else
    local wait = 0
    if attempts > 0 then wait = math.min(backoff * 2 ^ math.min(attempts - 1, 30), 300e6) end
    redis.call('ZADD', P..'due:'..release, text(now + wait), user)
  end
end
local function put(release, user, seen, neighbour, digest, head, tail)
  local f = P..'f:'..release..':'..user
  local old = redis.call('HGET', f, 'n')
  if old and old ~= '' then redis.call('SREM', P..'n:'..release..':'..old, user) end
  if neighbour ~= '' and redis.call('SISMEMBER', P..'erased', digest) == 1 then neighbour = ''; tail = '[]' end
  if neighbour ~= '' then redis.call('SADD', P..'n:'..release..':'..neighbour, user) end
  redis.call('HINCRBY', f, 'v', 1)
  redis.call('HSET', f, 's', seen, 'n', neighbour, 'h', head, 't', tail)
end
local function of_type(key, kind)
  local found = redis.call('TYPE', key)['ok']
  return found == kind or found == 'none'
end
local function known(user)
  for _, release in ipairs(redis.call('SMEMBERS', P..'names')) do
    if redis.call('EXISTS', P..'f:'..release..':'..user) == 1 then return true end
  end
  return false
end
local function turn(release, field, now, each, burst)
  local at = math.max(number(redis.call('HGET', P..'pace:'..release, field)), now - burst * each) + each
  redis.call('HSET', P..'pace:'..release, field, text(at))
  return at
end
local function held(release, user, token)
  local found = redis.call('HGET', P..'token:'..release, user)
  return found and string.sub(found, 1, #token + 1) == token..' '
end
"""

APPEND = """
-- ARGV: P, key, digest, ttl ms, backlog, source, former key, former digest, then one (user, time, event) triple per event
local known = redis.call('GET', P..'idem:'..ARGV[2]) or redis.call('GET', P..'idem:'..ARGV[7])
if known then return (known == ARGV[3] or known == ARGV[8]) and 'duplicate' or 'conflict' end
if redis.call('XLEN', P..'queue') >= tonumber(ARGV[5]) then return 'full' end
for i = 9, #ARGV, 3 do
  redis.call('XADD', P..'queue', '*', 'u', ARGV[i], 't', ARGV[i + 1], 'e', ARGV[i + 2], 'k', ARGV[6])
end
redis.call('SET', P..'idem:'..ARGV[2], ARGV[3], 'PX', ARGV[4])
return 'accepted'
"""

ABSORB = """
-- ARGV: P, now, window, trigger events, history limit, minimum microseconds between two known users of an API key and
-- between two new ones, burst; then one (stream id, reason) pair per entry, with the reason '' if it is readable.
-- Entries are read here, not from the worker's memory, so that entries of erased users and entries absorbed by another
-- worker are skipped. If a key of the user has the wrong type, the event becomes unreadable; an error would leave the
-- writes already made, because Redis does not roll back.
local now, window, trigger, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local each, burst = {known = tonumber(ARGV[6]), new = tonumber(ARGV[7])}, tonumber(ARGV[8])
local fresh, order, source, done = {}, {}, {}, 0
local releases, bodies = {}, redis.call('HGETALL', P..'releases')
for i = 1, #bodies, 2 do  -- without a quantiser version there are no features to write
  local read, body = pcall(cjson.decode, bodies[i + 1])
  if not read or type(body) ~= 'table' or body['quantizer_version'] ~= '' then releases[#releases + 1] = bodies[i] end
end
local function sound(user)
  for _, release in ipairs(releases) do
    if not of_type(P..'f:'..release..':'..user, 'hash') then return false end
  end
  return of_type(P..'h:'..user, 'zset') and of_type(P..'u:'..user, 'hash')
end
for i = 9, #ARGV, 2 do
  local entry = redis.call('XRANGE', P..'queue', ARGV[i], ARGV[i])[1]
  if redis.call('XACK', P..'queue', 'workers', ARGV[i]) == 1 and entry then
    redis.call('XDEL', P..'queue', ARGV[i])
    local found, why = {}, ARGV[i + 1]
    for k = 1, #entry[2], 2 do found[entry[2][k]] = entry[2][k + 1] end
    if why == '' and not sound(found['u']) then
      why = 'event not read: the keys of its user have the wrong Redis type'
    end
    if why ~= '' then
      redis.call('XADD', P..'unreadable', '*', 'u', found['u'] or '', 't', found['t'] or '', 'e', found['e'] or '', 'why', why)
    else
      source[found['u']] = found['k'] or ''
      if not fresh[found['u']] then order[#order + 1] = found['u'] end
      fresh[found['u']] = (fresh[found['u']] or 0) + redis.call('ZADD', P..'h:'..found['u'], found['t'], found['e'])
    end
    done = done + 1
  end
end
for _, user in ipairs(order) do
  redis.call('ZREMRANGEBYRANK', P..'h:'..user, 0, -limit - 1)
  local seen = redis.call('HINCRBY', P..'u:'..user, 'seen', fresh[user])
  local kind = known(user) and 'known' or 'new'
  for _, release in ipairs(releases) do
    if not redis.call('ZSCORE', P..'lease:'..release, user) and not redis.call('ZSCORE', P..'late:'..release, user) then
      local unread = seen - number(redis.call('HGET', P..'f:'..release..':'..user, 's'))
      local failed = number(redis.call('HGET', P..'try:'..release, user)) > 0
      local due, wanted = redis.call('ZSCORE', P..'due:'..release, user), unread >= trigger and now or now + window
      if not (due and (failed or tonumber(due) <= wanted)) then
        local at = turn(release, kind..':'..source[user], now, each[kind], burst)
        redis.call('ZADD', P..(at > now and 'late:' or 'due:')..release, text(at > now and at or wanted), user)
      end
    end
  end
end
return done
"""

CLAIM = """
-- ARGV: P, release, now, limit, lease end, token, worker, attempts limit, back-off
local release, now, limit = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('SET', P..'clock', text(math.max(now, number(redis.call('GET', P..'clock')))))
for _, user in ipairs(redis.call('ZRANGEBYSCORE', P..'lease:'..release, '-inf', ARGV[3])) do
  give_back(release, user, 'the worker died or hung', now, 1, tonumber(ARGV[8]), tonumber(ARGV[9]))
end
for _, user in ipairs(redis.call('ZRANGEBYSCORE', P..'late:'..release, '-inf', ARGV[3], 'LIMIT', 0, 1000)) do
  redis.call('ZADD', P..'due:'..release, 'LT', redis.call('ZSCORE', P..'late:'..release, user), user)
  redis.call('ZREM', P..'late:'..release, user)
end
local claims, chosen = {}, redis.call('ZRANGEBYSCORE', P..'due:'..release, '-inf', ARGV[3], 'LIMIT', 0, limit)
if #chosen < limit then
  for _, user in ipairs(redis.call('ZRANGE', P..'late:'..release, 0, limit - #chosen - 1)) do chosen[#chosen + 1] = user end
end
for _, user in ipairs(chosen) do
  redis.call('ZREM', P..'due:'..release, user)
  redis.call('ZREM', P..'late:'..release, user)
  if not redis.call('ZSCORE', P..'lease:'..release, user) then
    redis.call('ZADD', P..'lease:'..release, ARGV[5], user)
    redis.call('HSET', P..'token:'..release, user, ARGV[6]..' '..ARGV[7])
    claims[#claims + 1] = {user, number(redis.call('HGET', P..'try:'..release, user)), number(redis.call('HGET', P..'u:'..user, 'seen')),
      redis.call('ZRANGE', P..'h:'..user, 0, -1)}
  end
end
return claims
"""

COMMIT = """
-- ARGV: P, release, now, window, then for each row: user, token, seen, neighbour, its digest, head, tail, next due or ''
local release, stored = ARGV[2], {}
for i = 5, #ARGV, 8 do
  local user = ARGV[i]
  if held(release, user, ARGV[i + 1]) and of_type(P..'f:'..release..':'..user, 'hash') then
    put(release, user, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6])
    redis.call('ZREM', P..'lease:'..release, user)
    for _, key in ipairs({'token:', 'try:', 'dead:'}) do redis.call('HDEL', P..key..release, user) end
    if number(redis.call('HGET', P..'u:'..user, 'seen')) > number(ARGV[i + 2]) then
      redis.call('ZADD', P..'due:'..release, text(tonumber(ARGV[3]) + tonumber(ARGV[4])), user)
    elseif ARGV[i + 7] ~= '' then
      redis.call('ZADD', P..'due:'..release, ARGV[i + 7], user)
    end
    stored[#stored + 1] = 1
  else
    stored[#stored + 1] = 0
  end
end
return stored
"""

FAIL = """
-- ARGV: P, release, now, reason, count, attempts limit, back-off, then one (user, token) pair per user
for i = 8, #ARGV, 2 do
  if held(ARGV[2], ARGV[i], ARGV[i + 1]) then
    give_back(ARGV[2], ARGV[i], ARGV[4], tonumber(ARGV[3]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]))
  end
end
"""

ABANDON = """
-- ARGV: P, release, now, worker, count, attempts limit, back-off
local found, back = redis.call('HGETALL', P..'token:'..ARGV[2]), 0
for i = 1, #found, 2 do
  if string.match(found[i + 1], ' (.*)$') == ARGV[4] then
    give_back(ARGV[2], found[i], 'the worker died or hung', tonumber(ARGV[3]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]))
    back = back + 1
  end
end
return back
"""

READ = """
-- ARGV: P, users
local active = redis.call('HGET', P..'meta', 'active')
local rows = {active}
if active then
  for i = 2, #ARGV do  -- a key of the wrong type must not fail the whole call
    local row = P..'f:'..active..':'..ARGV[i]
    rows[i] = of_type(row, 'hash') and redis.call('HMGET', row, 'v', 'h', 't') or {false, false, false}
  end
end
return rows
"""

PUBLISH = """
-- ARGV: P, release, user, its digest, seen, neighbour, its digest, head, tail, next due or ''
redis.call('SADD', P..'names', ARGV[2])
if redis.call('EXISTS', P..'f:'..ARGV[2]..':'..ARGV[3]) == 1 or redis.call('SISMEMBER', P..'erased', ARGV[4]) == 1 then return 0 end
put(ARGV[2], ARGV[3], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9])
if ARGV[10] ~= '' then redis.call('ZADD', P..'due:'..ARGV[2], 'NX', ARGV[10], ARGV[3]) end
return 1
"""

ADD_RELEASE = """
-- ARGV: P, release, its JSON. The first release becomes active. Returns 1 if its users have already become due.
redis.call('SADD', P..'names', ARGV[2])
redis.call('HSET', P..'releases', ARGV[2], ARGV[3])
redis.call('HSETNX', P..'meta', 'active', ARGV[2])
return redis.call('HEXISTS', P..'meta', 'filled:'..ARGV[2])
"""

FILLED = """
-- ARGV: P, release
redis.call('HSET', P..'meta', 'filled:'..ARGV[2], 1)
"""

COUNT = """
-- ARGV: P, then one (counter, amount) pair per counter
for i = 2, #ARGV, 2 do redis.call('HINCRBY', P..'counters', ARGV[i], ARGV[i + 1]) end
"""

BEAT = """
-- ARGV: P, process, JSON
redis.call('HSET', P..'beats', ARGV[2], ARGV[3])
"""

FILL = """
-- ARGV: P, release, due, minimum microseconds between two new users, then the users. Of the users with events that
-- their row in this release does not contain, known users become due, and new users are deferred to their turns.
local release = ARGV[2]
for i = 5, #ARGV do
  local user = ARGV[i]
  local unread = number(redis.call('HGET', P..'u:'..user, 'seen')) - number(redis.call('HGET', P..'f:'..release..':'..user, 's'))
  if unread > 0 and not redis.call('ZSCORE', P..'lease:'..release, user) then
    if known(user) then
      redis.call('ZADD', P..'due:'..release, 'LT', ARGV[3], user)
    elseif not redis.call('ZSCORE', P..'due:'..release, user) then
      redis.call('ZADD', P..'late:'..release, 'NX', text(turn(release, 'new:', tonumber(ARGV[3]), tonumber(ARGV[4]), 0)), user)
    end
  end
end
"""

ACTIVATE = """
-- ARGV: P, release
if redis.call('HEXISTS', P..'releases', ARGV[2]) == 0 then return 0 end
local active = redis.call('HGET', P..'meta', 'active')
if active and active ~= ARGV[2] then
  redis.call('HSET', P..'meta', 'previous', active)
  redis.call('HDEL', P..'meta', 'undone')
end
redis.call('HSET', P..'meta', 'active', ARGV[2])
return 1
"""

ROLL_BACK = """
-- ARGV: P
local active, previous = redis.call('HGET', P..'meta', 'active'), redis.call('HGET', P..'meta', 'previous')
if not active or not previous then return false end
if redis.call('HGET', P..'meta', 'undone') == previous then return active end
redis.call('HSET', P..'meta', 'active', previous, 'previous', active, 'undone', active)
return previous
"""

RETIRE = """
-- ARGV: P, release. Removes the release from the live ones; the caller deletes its rows afterwards. A release that is
-- in ``names`` but no longer live was not deleted completely, so it may be retired again.
if redis.call('HGET', P..'meta', 'active') == ARGV[2] then return 0 end
if redis.call('HDEL', P..'releases', ARGV[2]) == 0 and redis.call('SISMEMBER', P..'names', ARGV[2]) == 0 then return 0 end
for _, name in ipairs({'previous', 'undone'}) do
  if redis.call('HGET', P..'meta', name) == ARGV[2] then redis.call('HDEL', P..'meta', name) end
end
redis.call('HDEL', P..'meta', 'filled:'..ARGV[2])
for _, key in ipairs({'due:', 'late:', 'pace:', 'lease:', 'token:', 'try:', 'dead:'}) do redis.call('DEL', P..key..ARGV[2]) end
return 1
"""

REPAIR = """
-- ARGV: P, now, latest possible due time, release, then users with rows. Users due later than the latest possible time,
-- leased users, and users whose row has a time after now become due now. Users with a dead letter are left out.
local now, latest, release, count = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], 0
local function again(user)
  if redis.call('HEXISTS', P..'dead:'..release, user) == 1 then return end
  for _, key in ipairs({'late:', 'lease:'}) do redis.call('ZREM', P..key..release, user) end
  redis.call('HDEL', P..'token:'..release, user)
  redis.call('ZADD', P..'due:'..release, ARGV[2], user)
  count = count + 1
end
redis.call('SET', P..'clock', text(math.min(now, number(redis.call('GET', P..'clock')))))
for _, key in ipairs({'due:', 'late:'}) do
  for _, user in ipairs(redis.call('ZRANGEBYSCORE', P..key..release, '('..ARGV[3], '+inf')) do again(user) end
end
for _, user in ipairs(redis.call('ZRANGE', P..'lease:'..release, 0, -1)) do again(user) end
for i = 5, #ARGV do
  local head = redis.call('HGET', P..'f:'..release..':'..ARGV[i], 'h')
  local due = redis.call('ZSCORE', P..'due:'..release, ARGV[i])
  if head and not (due and tonumber(due) <= now) then
    local row = cjson.decode('{'..head..'}')
    if row['as_of'] > now or row['generated_at'] > now then again(ARGV[i]) end
  end
end
redis.call('DEL', P..'pace:'..release, P..'beats')
return count
"""

RETRY = """
-- ARGV: P, now
local count = 0
for _, entry in ipairs(redis.call('XRANGE', P..'unreadable', '-', '+')) do
  redis.call('XADD', P..'queue', '*', unpack(entry[2], 1, 6))
  redis.call('XDEL', P..'unreadable', entry[1])
  count = count + 1
end
for _, release in ipairs(redis.call('HKEYS', P..'releases')) do
  for _, user in ipairs(redis.call('HKEYS', P..'dead:'..release)) do
    if not redis.call('ZSCORE', P..'lease:'..release, user) then
      redis.call('ZADD', P..'due:'..release, 'LT', ARGV[2], user)
      redis.call('HDEL', P..'try:'..release, user)
      redis.call('HDEL', P..'dead:'..release, user)
      count = count + 1
    end
  end
end
return count
"""

ERASE = """
-- ARGV: P, user, its digest, due time of the neighbours
local user, neighbours = ARGV[2], 0
redis.call('SADD', P..'erased', ARGV[3])
for _, release in ipairs(redis.call('SMEMBERS', P..'names')) do
  local row, cited = P..'f:'..release..':'..user, P..'n:'..release..':'..user
  local mine = redis.call('HGET', row, 'n')
  if mine and mine ~= '' then redis.call('SREM', P..'n:'..release..':'..mine, user) end
  for _, other in ipairs(redis.call('SMEMBERS', cited)) do
    redis.call('HSET', P..'f:'..release..':'..other, 'n', '', 't', '[]')
    redis.call('HINCRBY', P..'f:'..release..':'..other, 'v', 1)
    if not redis.call('ZSCORE', P..'lease:'..release, other) then redis.call('ZADD', P..'due:'..release, 'LT', ARGV[4], other) end
    neighbours = neighbours + 1
  end
  redis.call('DEL', row, cited)
  for _, key in ipairs({'due:', 'late:', 'lease:'}) do redis.call('ZREM', P..key..release, user) end
  for _, key in ipairs({'token:', 'try:', 'dead:'}) do redis.call('HDEL', P..key..release, user) end
end
redis.call('DEL', P..'u:'..user, P..'h:'..user)
return neighbours
"""
