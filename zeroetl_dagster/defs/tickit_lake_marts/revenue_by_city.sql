-- description: What the venues of a city earn, their best one, and how many users live there.
-- materialized: table

WITH earned AS (
  SELECT
    b.venuecity,
    b.venuestate,
    COUNT(*) AS venues,
    SUM(b.tickets_sold) AS tickets_sold,
    SUM(b.revenue) AS revenue,
    MIN(b.place) AS best_place
  FROM best_venues AS b
  GROUP BY b.venuecity, b.venuestate
),
residents AS (
  SELECT u.city, u.state, COUNT(*) AS users
  FROM tickit_export.public.users AS u
  GROUP BY u.city, u.state
)
SELECT
  earned.venuecity,
  earned.venuestate,
  earned.venues,
  earned.tickets_sold,
  earned.revenue,
  earned.best_place,
  COALESCE(residents.users, 0) AS users
FROM earned
LEFT JOIN residents ON residents.city = earned.venuecity AND residents.state = earned.venuestate
