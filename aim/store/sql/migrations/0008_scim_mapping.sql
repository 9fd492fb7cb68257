-- From which attribute the localparts in scim_resources were made: `attributeMapping.username` of the configuration, as
-- text. A client without a row: it is not known, as all were made before this was kept.

create table aim.scim_mappings (
    client text collate "C" primary key,
    username text not null
);
