import KafkaClient

/// A partition that this process has: its task, and what has been read and waits.
final class PartitionSlot {
    let partition: Int32
    let life: UInt32
    var task: JoinTask
    var incoming = Backlog()
    var members = Backlog()
    var pausedTopics: Set<String> = []
    /// In this epoch something was done.
    var isTouched = false

    /// So much is kept here before the partition is paused, which throws away what librdkafka has fetched.
    static let backlogBytesMax = 1 << 20

    init(_ task: JoinTask, life: UInt32) {
        self.partition = task.partition
        self.task = task
        self.life = life
    }

    var mark: JoinProgress.Mark {
        JoinProgress.Mark(partition: partition, life: life, positions: task.position)
    }
}
