// Makes and times pm2's calls: pm2_agent.js DIRECTORY; one JSON line in, one out. Ends with standard input.
const readline = require("readline");
const pm2 = require("pm2");

const directory = process.argv[2];
const now = () => Number(process.hrtime.bigint());

function options(name, command) {
  const file = `${directory}/${name}.log`;
  return {
    name,
    script: command[0],
    interpreter: "none",
    args: command.slice(1),
    autorestart: true,
    min_uptime: 0,
    max_restarts: 1000,
    output: file,
    error: file,
    kill_timeout: 5000,
  };
}

const call = (method, ...args) =>
  new Promise((resolve, reject) => pm2[method](...args, (error, answer) => (error ? reject(error) : resolve(answer))));

async function act(order) {
  switch (order.do) {
    case "ready":
      return call("connect");
    case "start":
      return call("start", options(order.name, order.command));
    case "start_all":
      return call("start", order.workers.map(([name, command]) => options(name, command)));
    case "delete":
      return call("delete", order.name);
    case "describe":
      return call("describe", order.name);
    case "list":
      return call("list");
    case "kill":
      return call("killDaemon");
  }
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    const begin = now();
    let reply;
    try {
      await act(order);
      reply = { begin, end: now() };
    } catch (error) {
      reply = { error: String((error && error.message) || error) };
    }
    process.stdout.write(JSON.stringify(reply) + "\n");
  }
  process.exit(0);
}

main();
