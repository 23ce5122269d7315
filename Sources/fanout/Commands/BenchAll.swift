import Bench
import OneMachine
import PostgresClient
import Runtime
import System
import Wire

extension BenchRun {
    static let all = BenchRun(
        name: "all", summary: "every target of the project against a fresh fanout up; takes five minutes"
    ) { invocation in
        guard let executable = CurrentProcess.executablePath else {
            throw UsageError("cannot find this program's own file, which runs what is measured")
        }
        let directory =
            (Environment["TMPDIR"] ?? "/tmp") + "/fanout-bench-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        // Postgres, which is not root, has to get through.
        try Directory.create(directory, permissions: 0o711)
        defer { try? Directory.removeAll(directory) }
        let table = try TableRun(
            executable: executable, directory: directory, log: invocation.log, clock: invocation.clock,
            locate: { directory in
                guard let system = try? RunningSystem.read(directory) else { return nil }
                return [
                    "FANOUT_TARGET": "127.0.0.1:\(system.port)", "FANOUT_KAFKA": system.kafka,
                    "FANOUT_POSTGRES": system.postgres, "FANOUT_TOKEN_KEY": system.tokenKey,
                ]
            },
            emptyDatabase: { environment in
                let url = environment["FANOUT_POSTGRES"] ?? ""
                var maintenance = try PostgresConnection(url)
                _ = try maintenance.execute("CREATE DATABASE bench")
                let named = (url.lastIndex(of: "/").map { String(url[..<$0]) } ?? url) + "/bench"
                var database = try PostgresConnection(named)
                try Migrations.apply(to: &database)
                return environment.merging(["FANOUT_POSTGRES": named]) { $1 }
            }
        ).run(durationMs: invocation.options.durationMs("duration") ?? 10_000)
        var json = JSONWriter()
        table.write(to: &json)
        Output.standard(
            invocation.options.flag("json") ? String(decoding: json.bytes, as: UTF8.self) + "\n" : table.text)
        return table.isMet ? .success : .failure
    }
}
