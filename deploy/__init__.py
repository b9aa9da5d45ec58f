"""What runs rotator and watches it: dashboards, alert rules, manifests, and a composition of all of them to look at."""
