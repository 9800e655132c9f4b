-- description: Venues by revenue, with their place among all venues.

WITH sold AS (
  SELECT
    e.venueid,
    COUNT(DISTINCT e.eventid) AS events,
    SUM(s.qtysold) AS tickets_sold,
    SUM(s.pricepaid) AS revenue
  FROM tickit_export.public.sales AS s
  JOIN tickit_export.public.event AS e ON e.eventid = s.eventid
  GROUP BY e.venueid
)
SELECT
  v.venueid,
  v.venuename,
  v.venuecity,
  v.venuestate,
  sold.events,
  sold.tickets_sold,
  sold.revenue,
  RANK() OVER (ORDER BY sold.revenue DESC) AS place
FROM sold
JOIN tickit_export.public.venue AS v ON v.venueid = sold.venueid
