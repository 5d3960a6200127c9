#!/usr/bin/env bash
# Waits until Airflow's database is migrated; with --login, until it has its login too. Every server starts with it.
set -euo pipefail

until (exec 3<> /dev/tcp/postgres/5432) 2> /dev/null; do sleep 0.5; done # costs less than asking Airflow
airflow db check-migrations --migration-wait-timeout 300
if [[ ${1-} == --login ]]; then
  until python -c "
import os, sqlalchemy
database = sqlalchemy.create_engine(os.environ['AIRFLOW__DATABASE__SQL_ALCHEMY_CONN'])
database.connect().execute(sqlalchemy.text('SELECT 1 FROM ab_user')).first() or exit(1)
"; do sleep 1; done
fi
