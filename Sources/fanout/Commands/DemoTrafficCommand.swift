import Bench
import Runtime
import System

extension Command {
    static let demoTraffic = Command(
        name: "demo-traffic",
        summary: "let demo people talk, for fanout up --demo-traffic",
        details: """
            Connects as each of the demo users but the first, and reads, types, answers and begins conversations at the pace
            of people, until it is stopped.
            """,
        options: [
            Option("target", .address, "the chat server", standard: "127.0.0.1:8080"),
            Option("demo-users", .string("FILE"), "who they are: names, ids and tokens, as fanout up writes them"),
        ],
        run: { invocation in
            let options = invocation.options
            guard let place = options.address("target"),
                let target = try SocketAddress.resolve(host: place.host, port: Int(place.port)).first
            else { throw UsageError("--target is required: --target HOST:PORT") }
            let file = try options.require("demo-users")
            try DemoTraffic(target: target, usersFile: file, log: invocation.log).run()
            return .success
        })
}
