// The roles of the read models' database, and a user of each: for mongosh, by an administrator, in this directory.
//
//     mongosh "mongodb://HOST/tidelog" --username ADMIN --authenticationDatabase admin --file roles.js
//
// tidelog: services. They make and drop a view's collections, and index them; they never remove a document.
// tidelog_read: services that only answer queries (`serve --role query`), and people.
//
// Put the database's name into both files for "tidelog", and in passwords where they are asked for.
const fs = require('fs');
for (const file of ['role.json', 'role-read.json']) {
  const role = JSON.parse(fs.readFileSync(file, 'utf8'));
  db.runCommand(role);
  db.createUser({ user: role.createRole, pwd: passwordPrompt(), roles: [role.createRole] });
}
