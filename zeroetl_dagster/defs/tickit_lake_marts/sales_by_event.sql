-- description: Tickets sold, orders and revenue of each event that sold any.

SELECT
  e.eventid,
  e.eventname,
  c.catname AS category,
  e.starttime,
  COUNT(*) AS orders,
  SUM(s.qtysold) AS tickets_sold,
  SUM(s.pricepaid) AS revenue
FROM tickit_export.public.sales AS s
JOIN tickit_export.public.event AS e ON e.eventid = s.eventid
JOIN tickit_export.public.category AS c ON c.catid = e.catid
GROUP BY e.eventid, e.eventname, c.catname, e.starttime
