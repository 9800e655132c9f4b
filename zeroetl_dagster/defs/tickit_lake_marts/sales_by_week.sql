-- description: Tickets sold and revenue of each week of the year.
-- materialized: table

SELECT
  d.year,
  d.week,
  MIN(d.caldate) AS first_day,
  COUNT(*) AS orders,
  SUM(s.qtysold) AS tickets_sold,
  SUM(s.pricepaid) AS revenue,
  SUM(s.commission) AS commission
FROM tickit_export.public.sales AS s
JOIN tickit_export.public.date AS d ON d.dateid = s.dateid
GROUP BY d.year, d.week
