// Prints what Node's tls says of each case, in a handshake with a server of its own.

const fs = require("fs");
const path = require("path");
const tls = require("tls");

function judge(directory) {
  const read = (name) => fs.readFileSync(path.join(directory, name));
  return new Promise((resolve) => {
    let server;
    const end = (said) => {
      if (server) server.close();
      resolve(said.replace(/\s+/g, " "));
    };
    try {
      server = tls.createServer({ key: read("key.pem"), cert: read("chain.pem") });
    } catch (error) {
      return end(error.message);
    }
    server.on("tlsClientError", () => {});
    server.listen(0, "127.0.0.1", () => {
      const client = tls.connect({
        host: "127.0.0.1",
        port: server.address().port,
        servername: "localhost",
        ca: read("bundle.pem"),
      });
      client.on("secureConnect", () => {
        client.destroy();
        end("accepted");
      });
      client.on("error", (error) => end(error.message));
    });
  });
}

(async () => {
  const cases = fs.readdirSync(process.argv[2]).sort((a, b) => a - b);
  for (const name of cases) {
    console.log(`${name}\t${await judge(path.join(process.argv[2], name))}`);
  }
})();
