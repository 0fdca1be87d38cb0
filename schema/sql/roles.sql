-- Roles belong to the server: another database may have made them, or may be making them at this moment
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['dims_app', 'dims_reader'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'DIMS: % may not create the role %. Have an administrator run: CREATE ROLE %; '
                    'then: CALL dims_grant()', current_user, wanted, wanted;
        END;
    END LOOP;
END
$$;
