-- description: Tickets sold, orders and revenue of each event that sold any.
-- sortkey: eventid

SELECT
  e.eventid,
  e.eventname,
  c.catname AS category,
  e.starttime,
  COUNT(*) AS orders,
  SUM(s.qtysold) AS tickets_sold,
  SUM(s.pricepaid) AS revenue
FROM tickit.public.sales AS s
JOIN tickit.public.event AS e ON e.eventid = s.eventid
JOIN tickit.public.category AS c ON c.catid = e.catid
GROUP BY e.eventid, e.eventname, c.catname, e.starttime
