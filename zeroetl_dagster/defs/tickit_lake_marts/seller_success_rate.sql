-- description: Of each seller the tickets put up for sale, those sold, and their share.

-- The share is a double precision: NUMERIC division keeps another number of digits in Redshift than in PostgreSQL.
WITH listed AS (
  SELECT l.sellerid, COUNT(*) AS listings, SUM(l.numtickets) AS tickets_listed
  FROM tickit_export.public.listing AS l
  GROUP BY l.sellerid
),
sold AS (
  SELECT s.sellerid, SUM(s.qtysold) AS tickets_sold, SUM(s.pricepaid) AS revenue
  FROM tickit_export.public.sales AS s
  GROUP BY s.sellerid
)
SELECT
  u.userid AS sellerid,
  u.firstname || ' ' || u.lastname AS seller,
  u.city,
  u.state,
  listed.listings,
  listed.tickets_listed,
  COALESCE(sold.tickets_sold, 0) AS tickets_sold,
  COALESCE(sold.revenue, 0) AS revenue,
  CAST(COALESCE(sold.tickets_sold, 0) AS DOUBLE PRECISION)
    / CAST(NULLIF(listed.tickets_listed, 0) AS DOUBLE PRECISION) AS success_rate
FROM listed
JOIN tickit_export.public.users AS u ON u.userid = listed.sellerid
LEFT JOIN sold ON sold.sellerid = listed.sellerid
