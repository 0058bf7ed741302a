-- 1
select count(*) from hits;
-- 2
select count(*) from hits where adv_engine_id <> 0;
-- 3
select sum(adv_engine_id), count(*), avg(resolution_width) from hits;
-- 4
select avg(user_id) from hits;
-- 5
select count(distinct user_id) from hits;
-- 6
select count(distinct search_phrase) from hits;
-- 7
select min(event_date), max(event_date) from hits;
-- 8
select adv_engine_id, count(*) as n from hits where adv_engine_id <> 0 group by adv_engine_id
    order by n desc, adv_engine_id;
-- 9
select region_id, count(distinct user_id) as u from hits group by region_id order by u desc,
    region_id limit 10;
-- 10
select region_id, sum(adv_engine_id), count(*) as c, avg(resolution_width), count(distinct
    user_id) from hits group by region_id order by c desc, region_id limit 10;
-- 11
select mobile_model, count(distinct user_id) as u from hits where mobile_model <> '' group by
    mobile_model order by u desc, mobile_model limit 10;
-- 12
select search_phrase, count(*) as c from hits where search_phrase <> '' group by search_phrase
    order by c desc, search_phrase limit 10;
-- 13
select search_phrase, count(distinct user_id) as u from hits where search_phrase <> '' group by
    search_phrase order by u desc, search_phrase limit 10;
-- 14
select user_id, count(*) as c from hits group by user_id order by c desc, user_id limit 10;
-- 15
select user_id, search_phrase, count(*) as c from hits group by user_id, search_phrase order by
    c desc, user_id, search_phrase limit 10;
-- 16
select user_id from hits where user_id = 435090932;
-- 17
select count(*) from hits where url like '%google%';
-- 18
select search_phrase, min(url), count(*) as c from hits where url like '%google%' and
    search_phrase <> '' group by search_phrase order by c desc, search_phrase limit 10;
-- 19
select event_time, search_phrase from hits where search_phrase <> '' order by event_time,
    search_phrase limit 10;
-- 20
select counter_id, avg(length(url)) as l, count(*) as c from hits where url <> '' group by
    counter_id having count(*) > 1000 order by l desc, counter_id limit 25;
-- 21
select sum(resolution_width + 1), sum(resolution_width + 2), sum(resolution_width + 3),
    sum(resolution_width + 4), sum(resolution_width + 5) from hits;
-- 22
select url, count(*) as c from hits where counter_id = 62 and is_refresh = 0 and event_date
    between date '2013-07-05' and date '2013-07-20' group by url order by c desc, url limit 10;
