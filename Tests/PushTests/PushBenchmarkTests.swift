import KafkaClient
import Push
import Runtime
import System
import TestSupport
import Testing

@Suite struct PushBenchmarkTests {
    @Test func `the benchmark tells everybody, and holds what a webhook refuses`() throws {
        let benchmark = PushBenchmark(
            KafkaConfiguration(bootstrapServers: try TestKafka.shared().address), people: 500, log: .none,
            clock: SystemClock())
        for figures in try benchmark.run(batches: [1, 20]) {
            #expect(figures.notices == 500 && figures.seconds > 0)
            #expect(figures.cpuSeconds > 0 && figures.webhookCPUSeconds > 0)
        }
        let backlog = try benchmark.runBacklog(records: 3000, awaySeconds: 1)
        #expect(backlog.records == 3000 && backlog.held == 3000 && backlog.people == 1000)
    }
}
