/* Ranks of a command: starting them with mpirun, joining them, and the plan that the options ask for. */
#ifndef CRIA_SERVER_COMMANDS_RANKS_H
#define CRIA_SERVER_COMMANDS_RANKS_H

#include "parallel/comm/comm.h"
#include "parallel/plan/cluster.h"
#include "parallel/plan/plan.h"
#include "server/commands/commands.h"
#include "server/runtime.h"

#include <stdbool.h>

/* True if mpirun, srun or an operator started this process as one rank of several. */
bool cria_ranks_started(void);
/* Where the options ask for several ranks and this is not one yet: starts them and does not return (the process ends
 * with their exit code); with --restart-ranks again and again. Otherwise returns CRIA_OK. */
cria_status cria_ranks_launch(const cria_command *command, cria_error *err);

/* All ranks of the command; comm is NULL where there is one, and on a rank that the plan leaves idle. */
typedef struct {
    const cria_main_options *options;
    cria_comm *comm;
    int rank, size;
    int share;     /* ranks on this host */
    int place;     /* of this rank among them; with --comm nccl its GPU */
    char host[64]; /* this rank's, as the launcher calls it */
    /* Once a plan has been made for them (server/commands/planned.h): */
    cria_comm *world;         /* all ranks, where the plan leaves some idle; comm is then of those that it needs */
    char *plan_json;          /* NULL: the plan is made from the options */
    int replicas;             /* copies of it, one after the other; 0: as the options say */
    int needed, *device;      /* [needed]: of the cluster, in the order of the plan's ranks */
    cria_cluster *cluster;    /* rank 0: the devices as they were measured; NULL: not known */
    cria_rate rate, *rate_of; /* rank 0: the types of weights: of most, by tensor; NULL: not looked at yet */
} cria_ranks_joined;
static inline bool cria_ranks_is_idle(const cria_ranks_joined *joined) {
    return joined->world && !joined->comm;
}
cria_status cria_ranks_join(const cria_command *command, cria_ranks_joined *out, cria_error *err);
/* Ends this rank's part and returns CRIA_OK, or returns `status` where there is one rank. After a failure on several
 * ranks it says what has failed, ends whatever is left of the others, and does not return. */
cria_status cria_ranks_leave(cria_ranks_joined *joined, const cria_command *command, cria_status status,
                             const cria_error *err);

/* Fills in the runtime request: the communicator, and the plan that was made for the ranks, or that --plan,
 * --tensor-parallel-size and --pipeline-parallel-size ask for. `joined` must outlive it. */
void cria_ranks_request(const cria_ranks_joined *joined, cria_runtime_request *request);
/* How many ranks the options ask for: 0 where they do not say. */
cria_status cria_ranks_wanted(const cria_main_options *options, int *out, cria_error *err);

/* Every rank but 0: opens the runtime, runs steps until rank 0 stops, closes it. */
cria_status cria_ranks_follow(const cria_command *command, const cria_ranks_joined *joined, cria_error *err);
/* Rank 0, after its runtime was opened: a table of where each rank runs and what it holds. Collective with
 * cria_ranks_follow. */
cria_status cria_ranks_print(const cria_ranks_joined *joined, const cria_runtime *runtime, cria_error *err);

#endif
